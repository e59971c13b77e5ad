r"""Sizes of networks for images of one's own: what is chosen works, is small enough, and fits the images."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from captum_dcf.models.halving import check_halves, halvings
from captum_dcf.models.registry import architecture
from captum_dcf.models.sizes import KINDS, sizes_for
from captum_dcf.registry import imported
from captum_dcf.testing import check_generator
from captum_dcf.zoo.card import Card
from captum_dcf.zoo.store import build

SHAPES = [(1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 24, 40)]
LATENT = ["vae", "gan", "autoencoder"]


def built(kind: str, shape: tuple[int, ...], images: int = 5000) -> nn.Module:
    name, arguments = sizes_for(kind, shape, images, classes=3)
    # As a card has them.
    return build(Card("mine", name, json.loads(json.dumps(arguments)), "")).eval()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_models_of_every_kind_take_images_of_every_size(kind: str, shape: tuple[int, ...]):
    model, images = built(kind, shape), torch.rand(2, *shape)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    assert weights < 25e6
    with torch.no_grad():
        if kind == "glow":
            latents, _ = model.inverse_and_log_det(images)
            assert sum(latent[0].numel() for latent in latents) == images[0].numel()
        elif kind in LATENT:
            assert model(images).shape == images.shape
        else:
            assert model(images).shape == {"classifier": (2, 3), "regressor": (2,)}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_default_model_for_large_images_stays_small(kind: str):
    # A flow's 1×1 convolutions are decomposed when they are drawn, which is slow for many channels.
    model = built(kind, (3, 128, 128) if kind == "glow" else (3, 224, 224))
    assert sum(parameter.numel() * 4 for parameter in model.parameters()) < 25e6


@pytest.mark.parametrize("kind", KINDS)
def test_few_images_get_a_smaller_model(kind: str):
    few, many = (sum(p.numel() for p in built(kind, (1, 16, 16), count).parameters()) for count in (100, 50_000))
    assert few < 0.6 * many


@pytest.mark.parametrize("kind", ["vae", "gan"])
def test_a_latent_model_is_a_generator(kind: str):
    model, images = built(kind, (3, 16, 16)), torch.rand(3, 3, 16, 16)
    name, _ = sizes_for(kind, (3, 16, 16), 5000)
    generator = imported(architecture(name).generator)(model)
    assert "has_gradients" in check_generator(generator, images)
    z = generator.encode(images)
    assert float(generator.typical_length(z)) == pytest.approx(math.sqrt(z.shape[1]))


def test_digits_get_the_networks_of_the_paper_and_of_the_shipped_flow():
    assert sizes_for("classifier", (1, 28, 28), 60_000, 10)[1]["blocks"] == [[16, 32], [64, 64]]
    _, arguments = sizes_for("glow", (1, 28, 28), 60_000)
    assert (arguments["steps"], arguments["hidden_channels"]) == ([12, 12], [96, 128])


@pytest.mark.parametrize(("size", "times"), [(8, 1), (14, 1), (16, 2), (28, 2), (32, 3), (64, 4), (128, 5), (224, 5)])
def test_how_often_an_image_is_halved(size: int, times: int):
    assert halvings(size, size) == times
    assert halvings(size, 2 * size) == halvings(2 * size, size) == times


@pytest.mark.parametrize("height", range(8, 130, 3))
@pytest.mark.parametrize("width", [9, 50, 100])
def test_a_size_that_cannot_be_halved_is_refused_with_sizes_that_can(height: int, width: int):
    try:
        halvings(height, width)
    except ValueError as error:
        said = str(error)
        assert f"received {height}×{width}" in said
        near = [tuple(map(int, size.split("×"))) for size in said.split("near are ")[1].split(" or ")]
        assert near
        for size in near:
            assert halvings(*size) >= 1
            assert all(abs(side - given) < given for side, given in zip(size, (height, width)))


@pytest.mark.parametrize("kind", ["glow", *LATENT])
def test_what_a_flow_cannot_halve(kind: str):
    for size, near in ((50, "48×48 or 52×52"), (100, "96×96 or 104×104"), (9, "8×8 or 10×10")):
        with pytest.raises(ValueError, match=rf"received {size}×{size}.* {near}"):
            sizes_for(kind, (1, size, size), 5000)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 7, 28), (1, 28, 6)])
def test_images_that_are_too_small(kind: str, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=f"8 pixels .*received {shape[1]}×{shape[2]}"):
        sizes_for(kind, shape, 5000, 2)


def test_what_no_model_can_be_chosen_for():
    with pytest.raises(ValueError, match=r"'diffusion'.*'glow'"):
        sizes_for("diffusion", (1, 28, 28), 5000)
    for shape in ((28, 28), (0, 28, 28)):
        with pytest.raises(ValueError, match=r"channels, height, width.*28"):
            sizes_for("glow", shape, 5000)
    with pytest.raises(ValueError, match="received 0"):
        sizes_for("glow", (1, 28, 28), 0)
    for classes in (None, 1):
        with pytest.raises(ValueError, match=f"two classes or more, received {classes}"):
            sizes_for("classifier", (1, 28, 28), 5000, classes)


def test_the_nearest_sizes_are_none_of_no_pixels():
    with pytest.raises(ValueError, match=r"received 6×20.* 8×16 or 8×24"):
        check_halves(6, 20, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_an_architecture(kind: str):
    name, _ = sizes_for(kind, (1, 16, 16), 100, 2)
    assert architecture(name).role == (kind if kind in ("classifier", "regressor") else "generator")
