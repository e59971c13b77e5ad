r"""Metrics of a whole set of images, not of one: Fréchet distance and Inception score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_dcf.metrics.registry import metric

__all__ = ["frechet_distance", "inception_score"]

Network = Callable[[Tensor], Tensor]

_IMAGES_AT_ONCE = 50
_INCEPTION_FEATURES = 2048
_INCEPTION_CLASSES = 1008


@metric(better="lower", of="set")
@torch.no_grad()
def frechet_distance(network: Network | None, counterfactuals: Tensor, references: Tensor) -> float:
    r"""Fréchet distance between the features of two sets of images, each taken as one Gaussian.

    .. math:: \| \mu - \mu_r \|_2^2 + \mathrm{tr}\left( \Sigma + \Sigma_r - 2 (\Sigma \Sigma_r)^{1/2} \right)

    Range [0, ∞), in squared units of the features; lower is more realistic. With the Inception network it is the FID
    (Heusel et al., 2017, https://arxiv.org/abs/1706.08500). Means and covariances need many images: compare figures
    only between sets of one size.

    Args:
        network: Gives features (N, F). None for the Inception network of pytorch-gan-metrics, which is downloaded when
            it is first used.
        counterfactuals: Images (N, C, H, W), for Inception with values in [0, 1]; one channel is repeated to three.
        references: Real images (M, C, H, W).

    Returns:
        The distance.

    Raises:
        ValueError: Fewer than 2 images in one of the sets, or features of another shape.
        ImportError: Without a ``network``, pytorch-gan-metrics is not installed.
    """
    for name, a_set in (("counterfactuals", counterfactuals), ("references", references)):
        if len(a_set) < 2:
            raise ValueError(f"a Fréchet distance needs at least 2 images in each set, {name} has {len(a_set)}")
    mean, factor = _gaussian(_features(counterfactuals, network, _INCEPTION_FEATURES))
    other_mean, other_factor = _gaussian(_features(references, network, _INCEPTION_FEATURES))
    # With Σ = RᵀR, the eigenvalues of Σ Σr are the squared singular values of R Rrᵀ: no square root of a matrix is
    # needed, which is what fails for sets smaller than the number of features.
    shared = torch.linalg.svdvals(factor @ other_factor.T).sum()
    spread = factor.square().sum() + other_factor.square().sum() - 2 * shared
    return ((mean - other_mean).square().sum() + spread).clamp(min=0).item()


@metric(better="higher", of="set")
@torch.no_grad()
def inception_score(network: Network | None, counterfactuals: Tensor, *, splits: int = 10) -> float:
    r"""Inception score: are single images clear, and all of them together of many classes?

    .. math:: \exp \, \mathbb{E}_x \, \mathrm{KL}(p(y | x) \, \| \, p(y))

    Range [1, number of classes], no unit; higher is better (Salimans et al., 2016, https://arxiv.org/abs/1606.03498).
    It does not look at real images, and for counterfactuals of one target class it is low by design. Computed by
    pytorch-gan-metrics.

    Args:
        network: Gives logits (N, K). None for the Inception network of pytorch-gan-metrics, which is downloaded when
            it is first used.
        counterfactuals: Images (N, C, H, W), for Inception with values in [0, 1]; one channel is repeated to three.
        splits: Number of parts the images are divided into; each gives one score.

    Returns:
        Mean of the scores of the parts.

    Raises:
        ValueError: Fewer images than ``splits``, or logits of another shape.
        ImportError: pytorch-gan-metrics is not installed.
    """
    if not 1 <= splits <= len(counterfactuals):
        raise ValueError(f"splits must be from 1 to the number of images, {len(counterfactuals)}, received {splits}")
    if network is None:
        probabilities = _features(counterfactuals, None, _INCEPTION_CLASSES)
    else:
        probabilities = _features(counterfactuals, network, _INCEPTION_CLASSES).softmax(1)
    # The library takes 0 · log 0 for not a number.
    probabilities = probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny)
    mean, _ = _core().calculate_inception_score(probabilities.numpy(), splits)
    return float(mean)


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    # The mean, and a factor R of the covariance RᵀR.
    mean = features.mean(0)
    factor = torch.linalg.qr(features - mean, mode="r").R
    return mean, factor / (len(features) - 1) ** 0.5


def _features(images: Tensor, network: Network | None, inception_size: int) -> Tensor:
    # In float64 on the CPU, as is usual for these measures: they are small differences of large sums.
    if network is None:
        return _inception(images, inception_size)
    features = torch.cat([network(part) for part in images.split(_IMAGES_AT_ONCE)])
    if features.dim() != 2 or len(features) != len(images):
        raise ValueError(f"a network must give (N, F) for N = {len(images)} images, received {tuple(features.shape)}")
    return features.cpu().double()


def _inception(images: Tensor, size: int) -> Tensor:
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"Inception needs images (N, 3, H, W) or (N, 1, H, W), received {tuple(images.shape)}")
    images = images.expand(-1, 3, -1, -1)
    # The library draws random numbers: for the order of the images, which is fixed, and for weights that it overwrites.
    with torch.random.fork_rng(devices=[]):
        [features] = _core().get_inception_feature(
            images, dims=[size], batch_size=_IMAGES_AT_ONCE, device=images.device
        )
    return torch.from_numpy(features)


def _core() -> Any:
    try:
        from pytorch_image_generation_metrics import core
    except ImportError as error:
        message = f'pytorch-gan-metrics is needed here ({error}): pip install "captum_dcf[metrics]"'
        raise ImportError(message) from error
    return core
