from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from captum_dcf.metrics import frechet_distance, inception_score


def flat(x):
    return x.flatten(1)


def by_scipy(images, references):
    from scipy.linalg import sqrtm

    a, b = (x.flatten(1).double().numpy() for x in (images, references))
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(first @ second).real
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(first + second - 2 * root)


def test_frechet_distance_is_that_of_scipy():
    images, references = torch.rand(60, 1, 3, 3), 0.3 + torch.rand(80, 1, 3, 3) ** 2
    measured = frechet_distance(flat, images, references)
    assert measured == pytest.approx(by_scipy(images, references), rel=1e-6)
    assert measured == pytest.approx(frechet_distance(flat, references, images))


def test_shifted_set_is_at_the_squared_shift():
    images = torch.rand(30, 1, 2, 2)
    assert frechet_distance(flat, images, images + 0.5) == pytest.approx(4 * 0.25, rel=1e-4)
    assert frechet_distance(flat, images, images) == pytest.approx(0, abs=1e-9)


def test_distance_is_never_negative():
    # Of a set to itself it is 0 but for rounding, in either direction.
    for seed in range(20):
        images = 1e3 + torch.rand(6, 12, generator=torch.Generator().manual_seed(seed))
        assert 0 <= frechet_distance(flat, images, images) < 1e-6


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_images_that_are_not_finite_are_refused(value):
    images, references = torch.rand(5, 1, 2, 2), torch.rand(6, 1, 2, 2)
    images[3, 0, 0, 1] = value
    with pytest.raises(ValueError, match="counterfactuals must be finite: 1 of 5"):
        frechet_distance(flat, images, references)
    with pytest.raises(ValueError, match="references must be finite: 1 of 5"):
        frechet_distance(flat, references, images)
    with pytest.raises(ValueError, match="must be finite: 1 of 5"):
        inception_score(flat, images, splits=1)


def test_fewer_images_than_features():
    # Of two points each, on lines at a right angle: covariances of rank one that share nothing.
    images = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    references = torch.tensor([[0.0, 2.0, 0.0], [0.0, -2.0, 0.0]])
    assert frechet_distance(flat, images, references) == pytest.approx(2 + 8)


def test_one_feature():
    images, references = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [7.0]])
    # (μ - μr)² + (σ - σr)² with deviations √2 and √18.
    assert frechet_distance(flat, images, references) == pytest.approx(9 + (18**0.5 - 2**0.5) ** 2)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="at least 2 images in each set, counterfactuals has 1"):
        frechet_distance(flat, torch.zeros(1, 1, 2, 2), torch.zeros(5, 1, 2, 2))
    with pytest.raises(ValueError, match="references has 0"):
        frechet_distance(flat, torch.zeros(5, 1, 2, 2), torch.zeros(0, 1, 2, 2))


def test_network_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(N, F\) for N = 2 images, received \(2, 1, 2, 2\)"):
        frechet_distance(lambda x: x, torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2))


@pytest.fixture
def library():
    return pytest.importorskip("pytorch_image_generation_metrics")


def test_inception_score_of_sure_and_of_unsure_networks(library):
    images = torch.eye(5).repeat(8, 1)
    mean = inception_score(lambda x: 1e3 * x, images, splits=1)
    assert mean == pytest.approx(5)
    assert inception_score(torch.zeros_like, images, splits=4) == pytest.approx(1)


def test_inception_score_is_the_divergence_of_scipy(library):
    from scipy.stats import entropy

    logits = torch.randn(40, 6)
    probabilities = logits.double().softmax(1).numpy()
    scores = [np.exp(entropy(part, part.mean(0, keepdims=True), axis=1).mean()) for part in np.split(probabilities, 4)]
    assert inception_score(lambda x: x, logits, splits=4) == pytest.approx(np.mean(scores))


def test_splits_larger_than_the_set_are_refused():
    with pytest.raises(ValueError, match="number of images, 3, received 10"):
        inception_score(flat, torch.zeros(3, 4))


def test_inception_network_of_the_library(library, monkeypatch):
    from torchvision.models import Inception3

    # The network comes with weights of its own, so that nothing is downloaded.
    monkeypatch.setattr("pytorch_image_generation_metrics.inception.load_state_dict_from_url", lambda *_, **__: {})
    monkeypatch.setattr(Inception3, "load_state_dict", lambda self, state_dict: None)
    grey = torch.rand(2, 1, 32, 32)
    state = torch.get_rng_state()
    # A network that was not trained tells little apart, but grey images and the same in three channels not at all.
    assert frechet_distance(None, grey, grey.expand(-1, 3, -1, -1)) < frechet_distance(
        None, grey, torch.zeros(2, 1, 32, 32)
    )
    assert 1 <= inception_score(None, grey, splits=1) <= 1008
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match=r"received \(2, 2, 32, 32\)"):
        frechet_distance(None, grey.expand(-1, 2, -1, -1), grey)


def test_missing_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_image_generation_metrics", None)
    with pytest.raises(ImportError, match=r'pip install "captum_dcf\[metrics\]"'):
        inception_score(flat, torch.zeros(10, 4))
