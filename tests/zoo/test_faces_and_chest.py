r"""The models of faces and X-rays: they know the bundled images, and their flows lose nothing and turn classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_dcf import DiffeomorphicCounterfactual, Generator, Status, zoo
from captum_dcf.data import chest_sample, faces_sample, mnist_sample
from captum_dcf.data.sources import SOURCES
from captum_dcf.generators.support import plausibility

load: Callable[[str], Any] = cache(zoo.load)
SAMPLES = {"faces": faces_sample, "chest": chest_sample}


@pytest.mark.parametrize(
    ("name", "least"), [("faces-cnn", 0.97), ("faces-oracle", 0.97), ("chest-cnn", 0.8), ("chest-oracle", 0.8)]
)
@torch.no_grad()
def test_a_classifier_knows_the_bundled_images(name: str, least: float):
    images, labels = SAMPLES[name.split("-")[0]]()
    predicted = torch.cat([load(name)(part).argmax(1) for part in images.split(50)])
    assert (predicted == labels).float().mean() > least


@pytest.mark.parametrize("name", [name for name in zoo.names() if name.startswith(tuple(SAMPLES))])
def test_a_card_says_whose_images_and_which_classes(name: str):
    card = zoo.read_card(name)
    assert "CC" in card.data
    if isinstance(load(name), Generator):
        assert not card.classes
    else:
        assert tuple(card.classes) == SOURCES[name.split("-")[0]].classes


@pytest.mark.parametrize("name", ["faces-glow", "chest-glow"])
@torch.no_grad()
def test_a_flow_loses_nothing_of_the_bundled_images(name: str):
    flow, images = load(name), SAMPLES[name.split("-")[0]]()[0][::40]
    with flow.constant():
        assert (flow(images) - images).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["faces-glow", "chest-glow", "faces-vae", "mnist-glow", "mnist-ae"])
@torch.no_grad()
def test_the_support_of_a_generator_is_that_of_its_kind_of_image(name: str):
    # Images never trained on are about as plausible as those that were.
    generator = load(name)
    known = {**SAMPLES, "mnist": mnist_sample}[name.split("-")[0]]
    images = known()[0][::15]
    percentiles = generator.support.percentile(plausibility(generator, images)[1])
    assert 15 < percentiles.median() < 85
    if generator.exact:
        noise = torch.rand_like(images[:4])
        assert generator.support.percentile(plausibility(generator, noise)[1]).max() == 0


@pytest.mark.parametrize(("data", "label"), [("faces", 0), ("chest", 0)])
def test_one_class_becomes_the_other_within_the_support(data: str, label: int):
    images, labels = SAMPLES[data]()
    classifier, flow = load(f"{data}-cnn"), load(f"{data}-glow")
    images = images[labels == label][:12]
    with torch.no_grad():
        images = images[classifier(images).argmax(1) == label][:4]
    result = DiffeomorphicCounterfactual(classifier, flow).counterfactual(images, target=1 - label)
    assert set(result.statuses()) == {Status.FOUND}
    assert result.end_percentiles.min() >= 1
    assert_towards(classifier, result.counterfactuals, 1 - label)


@torch.no_grad()
def assert_towards(classifier: Any, images: Tensor, target: int) -> None:
    assert images.min() >= 0
    assert images.max() <= 1
    assert (classifier(images).softmax(1)[:, target] > 0.99).all()
