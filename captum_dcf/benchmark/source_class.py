r"""How far a counterfactual is from the class that it came from: means over real images, as in the paper's tables.

Dombrowski et al., "Diffeomorphic Counterfactuals with Generative Models", IEEE TPAMI 46(5), 2024, section 4,
https://arxiv.org/abs/2206.05075
"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_dcf.generators import Generator
from captum_dcf.metrics._judges import encoded
from captum_dcf.metrics.registry import metric

__all__ = ["l2_latent_to_class", "l2_to_class"]


@metric(better=None)
@torch.no_grad()
def l2_to_class(
    counterfactuals: Tensor, source: Tensor, references: Tensor, reference_labels: Tensor, *, most: int = 1000
) -> Tensor:
    r"""Mean Euclidean distance of x' to real images of the class that the model gives x.

    Range [0, ∞), in pixel values; neither more nor less is better in itself.

    Args:
        counterfactuals: Images x' (N, C, H, W).
        source: Class that the model gives x, integers (N,).
        references: Real images (M, C, H, W).
        reference_labels: Their classes (M,).
        most: Compare with the first so many images of a class.

    Returns:
        Means (N,); NaN where no reference is of the class.
    """
    means = torch.full_like(counterfactuals.flatten(1)[:, 0], float("nan"))
    for label in torch.unique(source).tolist():
        real = references[reference_labels == label][:most]
        if len(real):
            means[source == label] = torch.cdist(counterfactuals[source == label].flatten(1), real.flatten(1)).mean(1)
    return means


@metric(better=None)
@torch.no_grad()
def l2_latent_to_class(
    generator: Generator,
    counterfactuals: Tensor,
    source: Tensor,
    references: Tensor,
    reference_labels: Tensor,
    *,
    most: int = 1000,
) -> Tensor:
    r"""The same in latents: mean distance of the latent of x' to those of real images of the class that x has.

    Range [0, ∞), in units of the latent space; neither more nor less is better in itself.

    Args:
        generator: Gives the latents.
        counterfactuals: Images x' (N, C, H, W).
        source: Class that the model gives x, integers (N,).
        references: Real images (M, C, H, W).
        reference_labels: Their classes (M,).
        most: Compare with the first so many images of a class.

    Returns:
        Means (N,); NaN where no reference is of the class.
    """
    latents = encoded(generator, counterfactuals)
    means = torch.full_like(latents[:, 0], float("nan"))
    for label in torch.unique(source).tolist():
        real = references[reference_labels == label][:most]
        if len(real):
            means[source == label] = torch.cdist(latents[source == label], encoded(generator, real)).mean(1)
    return means
