r"""What the data say: the real images that are nearest to a counterfactual."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_dcf.metrics._arguments import check_images, class_indices, in_common_dtype, result_dtype
from captum_dcf.metrics.registry import metric

__all__ = ["neighbor_agreement", "neighbor_mean"]

# Distances held at once: 64 MiB of float32.
_DISTANCES_AT_ONCE = 2**24


@metric(better="higher")
@torch.no_grad()
def neighbor_agreement(
    counterfactuals: Tensor, target: int | Tensor, references: Tensor, reference_labels: Tensor, *, k: int = 10
) -> Tensor:
    r"""Share of the target class among the k nearest real images.

    .. math:: \frac{1}{k} \sum_{j \in N_k(x')} [\, y_j = t \,]

    Range [0, 1]; higher is better. NaN where a pixel of x' is not finite. Distances are Euclidean (Dombrowski et al.,
    2024, https://arxiv.org/abs/2206.05075, with k = 10).

    Args:
        counterfactuals: Images x' (N, C, H, W), or any features of them (N, ...), such as latents.
        target: Class t: an int, or an integer tensor (N,).
        references: Real images, or the same features of them, (M, ...).
        reference_labels: Their classes, integer (M,).
        k: Number of neighbours.

    Returns:
        Shares (N,).

    Raises:
        ValueError: The reference set is empty or smaller than k, a shape does not fit, or a reference is not finite.

    Examples:
        >>> images, labels = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 1, 1])
        >>> neighbor_agreement(torch.tensor([[0.4], [4.0]]), 1, images, labels, k=2)
        tensor([0.5000, 1.0000])
    """
    check_images(counterfactuals=counterfactuals, references=references)
    targets = class_indices(target, counterfactuals)
    labels = _of_nearest(counterfactuals, references, reference_labels, k)
    return _mean_of_finite(labels == targets[:, None], counterfactuals)


@metric(better=None)
@torch.no_grad()
def neighbor_mean(counterfactuals: Tensor, references: Tensor, reference_labels: Tensor, *, k: int = 3) -> Tensor:
    r"""Mean regression value of the k nearest real images: what the data say the value of x' is.

    .. math:: \frac{1}{k} \sum_{j \in N_k(x')} r_j

    In the units and range of the values; the nearer to the value the search was to reach, the better. NaN where a pixel
    of x' is not finite. Distances are Euclidean (Dombrowski et al., 2024, https://arxiv.org/abs/2206.05075, with
    k = 3).

    Args:
        counterfactuals: Images x' (N, C, H, W), or any features of them (N, ...), such as latents.
        references: Real images, or the same features of them, (M, ...).
        reference_labels: Their values (M,).
        k: Number of neighbours.

    Returns:
        Means (N,).

    Raises:
        ValueError: The reference set is empty or smaller than k, a shape does not fit, or a reference is not finite.
    """
    check_images(counterfactuals=counterfactuals, references=references)
    return _mean_of_finite(_of_nearest(counterfactuals, references, reference_labels, k), counterfactuals)


def _of_nearest(images: Tensor, references: Tensor, values: Tensor, k: int) -> Tensor:
    # The values (N, k) that belong to the k nearest references.
    if len(references) == 0:
        raise ValueError("the reference set is empty: neighbours need at least one image")
    if images.shape[1:] != references.shape[1:]:
        raise ValueError(
            "counterfactuals and references must be images of one shape, "
            f"received {tuple(images.shape)} and {tuple(references.shape)}"
        )
    if values.shape != references.shape[:1]:
        raise ValueError(
            f"references need one label or value each: they are {tuple(references.shape)}, these {tuple(values.shape)}"
        )
    if not 1 <= k <= len(references):
        raise ValueError(f"k must be from 1 to the size of the reference set, {len(references)}, received {k}")
    images, references = in_common_dtype(images.flatten(1), references.flatten(1))
    unfit = ~references.isfinite().all(1)
    if unfit.any():
        raise ValueError(f"references must be finite: {int(unfit.sum())} of {len(unfit)} have NaN or infinite pixels")
    # Distances of many points are made from products, which lose all digits where the points are far from the origin.
    center = references.mean(0)
    images, references = images - center, references - center
    chunk = max(1, _DISTANCES_AT_ONCE // len(references))
    nearest = [torch.cdist(part, references).topk(k, largest=False).indices for part in torch.split(images, chunk)]
    return values.to(images.device)[torch.cat(nearest)]


def _mean_of_finite(values: Tensor, images: Tensor) -> Tensor:
    # Means (N,) of values (N, k), NaN for images that are nowhere.
    means = values.to(result_dtype(images)).mean(1)
    return means.masked_fill(~images.isfinite().flatten(1).all(1), torch.nan)
