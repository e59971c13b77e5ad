r"""Metrics of a whole set of images, not of one: Fréchet distance and Inception score."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_dcf.metrics._arguments import check_images
from captum_dcf.metrics._judges import ForwardFunc, OutputKind, ask, class_probabilities
from captum_dcf.metrics.registry import metric

__all__ = ["frechet_distance", "inception_score"]

_IMAGES_AT_ONCE = 50
_INCEPTION_FEATURES = 2048
_INCEPTION_CLASSES = 1008


@metric(better="lower", of="set")
@torch.no_grad()
def frechet_distance(network: ForwardFunc | None, counterfactuals: Tensor, references: Tensor) -> float:
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
        ValueError: Fewer than 2 images in one of the sets, or features of another shape or that are not finite.
        ImportError: Without a ``network``, pytorch-gan-metrics is not installed.
    """
    check_images(counterfactuals=counterfactuals, references=references)
    for name, a_set in (("counterfactuals", counterfactuals), ("references", references)):
        if len(a_set) < 2:
            raise ValueError(f"a Fréchet distance needs at least 2 images in each set, {name} has {len(a_set)}")
    mean, factor = _gaussian(_features("counterfactuals", counterfactuals, network))
    other_mean, other_factor = _gaussian(_features("references", references, network))
    # With Σ = RᵀR, the eigenvalues of Σ Σr are the squared singular values of R Rrᵀ: no square root of a matrix is
    # needed, which is what fails for sets smaller than the number of features.
    shared = torch.linalg.svdvals(factor @ other_factor.T).sum()
    spread = factor.square().sum() + other_factor.square().sum() - 2 * shared
    return float(((mean - other_mean).square().sum() + spread).clamp(min=0))


@metric(better="higher", of="set")
@torch.no_grad()
def inception_score(
    network: ForwardFunc | None, counterfactuals: Tensor, *, splits: int = 10, output: OutputKind = "logits"
) -> float:
    r"""Inception score: are single images clear, and all of them together of many classes?

    .. math:: \exp \, \mathbb{E}_x \, \mathrm{KL}(p(y | x) \, \| \, p(y))

    Range [1, number of classes], no unit; higher is better (Salimans et al., 2016, https://arxiv.org/abs/1606.03498).
    It does not look at real images, and for counterfactuals of one target class it is low by design. Computed by
    pytorch-gan-metrics.

    Args:
        network: A classifier, gives ``output``. None for the Inception network of pytorch-gan-metrics, which is
            downloaded when it is first used.
        counterfactuals: Images (N, C, H, W), for Inception with values in [0, 1]; one channel is repeated to three.
        splits: Number of parts the images are divided into; each gives one score.
        output: What ``network`` gives, as for :func:`~captum_dcf.metrics.validity`.

    Returns:
        Mean of the scores of the parts.

    Raises:
        ValueError: Fewer images than ``splits``, or an output of another shape or that is not finite.
        ImportError: pytorch-gan-metrics is not installed.
    """
    check_images(counterfactuals=counterfactuals)
    if not 1 <= splits <= len(counterfactuals):
        raise ValueError(f"splits must be from 1 to the number of images, {len(counterfactuals)}, received {splits}")
    if network is None:
        probabilities = _inception(counterfactuals, _INCEPTION_CLASSES)
    else:
        probabilities = _probabilities(counterfactuals, network, output)
    _check_finite("output of the network", probabilities)
    # The library takes 0 · log 0 for not a number.
    probabilities = probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny)
    mean, _ = _core().calculate_inception_score(probabilities.numpy(), splits)
    return float(mean)


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    # The mean, and a factor R of the covariance RᵀR.
    mean = features.mean(0)
    factor = torch.linalg.qr(features - mean, mode="r").R
    return mean, factor / (len(features) - 1) ** 0.5


def _features(name: str, images: Tensor, network: ForwardFunc | None) -> Tensor:
    # In float64 on the CPU, as is usual for these metrics: they are small differences of large sums.
    if network is None:
        features = _inception(images, _INCEPTION_FEATURES)
    else:
        features = torch.cat([ask(network, part) for part in torch.split(images, _IMAGES_AT_ONCE)]).cpu().double()
    if features.dim() != 2 or len(features) != len(images):
        raise ValueError(f"a network must give (N, F) for N = {len(images)} images, received {tuple(features.shape)}")
    _check_finite(f"features of the {name}", features)
    return features


def _probabilities(images: Tensor, network: ForwardFunc, output: OutputKind) -> Tensor:
    parts = torch.split(images, _IMAGES_AT_ONCE)
    # Of no class in particular.
    none = torch.zeros(1, dtype=torch.int64, device=images.device)
    return torch.cat([class_probabilities(network, part, none, output) for part in parts]).cpu().double()


def _check_finite(what: str, values: Tensor) -> None:
    unfit = int((~values.isfinite().all(1)).sum())
    if unfit:
        raise ValueError(f"the {what} must be finite: {unfit} of {len(values)} images have NaN or infinity")


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
