r"""What the singular values and vectors of a decoder's Jacobian say of the data manifold."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_dcf.geometry.products import (
    COLUMN_COST,
    Decode,
    as_int,
    at_least_single,
    checked_latents,
    count_pixels,
    full_jacobian,
    pull,
    push,
)

__all__ = ["local_dimension", "off_manifold_share", "spectrum", "tangent_space"]

# Of the randomised range finder (Halko et al., 2011, https://arxiv.org/abs/0909.4061).
_OVERSAMPLING = 10
_POWER_ITERATIONS = 2


@torch.inference_mode(False)
def spectrum(decode: Decode, latents: Tensor, rank: int | None = None, batch_size: int = 64) -> Tensor:
    r"""Singular values of the Jacobian, in descending order: how far a unit step in latent space can move the image.

    Args:
        decode: Latents (N, D) to images.
        latents: (N, D).
        rank: None for all of them, from the full Jacobian. A number for only so many, found from products of J and Jᵀ
            with a few random directions where that is cheaper; accurate where the singular values fall off beyond
            ``rank``, else slightly too small.
        batch_size: Products with J computed at once.

    Returns:
        Singular values (N, min(D, P)) or (N, ``rank``), at least 0, in pixel values per latent unit.

    Raises:
        ValueError: The latents are not (N, D), there are none, ``rank`` is not from 1 to min(D, P), or ``decode`` has
            no gradient or one that is not finite.
        TypeError: ``rank`` is not an int.
    """
    if rank is not None:
        return _leading(decode, latents, rank, batch_size)[1]
    own = checked_latents(latents, batch_size)
    pixels = count_pixels(decode, own)
    # One part after the other, so that one Jacobian of a large image is held at once.
    parts = torch.split(own, max(1, batch_size // own.shape[1]))
    values = [torch.linalg.svdvals(_finite(full_jacobian(decode, part, pixels, batch_size))) for part in parts]
    return torch.cat(values).to(latents.dtype)


@torch.inference_mode(False)
def tangent_space(decode: Decode, latents: Tensor, dimension: int, batch_size: int = 64) -> Tensor:
    r"""Orthonormal basis of the tangent space: the left singular vectors of J that have the largest singular values.

    Args:
        decode: Latents (N, D) to images.
        latents: (N, D).
        dimension: Number d of basis vectors, see :func:`local_dimension`.
        batch_size: Products with J computed at once.

    Returns:
        (N, P, d), columns in the order of falling singular values; their signs mean nothing.

    Raises:
        ValueError: The latents are not (N, D), there are none, ``dimension`` is not from 1 to min(D, P), or ``decode``
            has no gradient or one that is not finite.
        TypeError: ``dimension`` is not an int.
    """
    return _leading(decode, latents, dimension, batch_size)[0]


def local_dimension(singular_values: Tensor, share: float = 0.95) -> Tensor:
    r"""Number of leading directions that hold a share of the sum of the squared singular values.

    Args:
        singular_values: All of them, (N, K), in descending order, from :func:`spectrum`.
        share: In (0, 1].

    Returns:
        Dimensions, int64 (N,), from 1 to K.

    Raises:
        ValueError: The singular values are not (N, K) or not finite, or ``share`` is not in (0, 1].

    Examples:
        >>> local_dimension(torch.tensor([[3.0, 3.0, 0.1], [5.0, 0.2, 0.1]]))
        tensor([2, 1])
    """
    if singular_values.dim() != 2 or singular_values.shape[1] == 0:
        raise ValueError(f"singular values must have the shape (N, K), received {tuple(singular_values.shape)}")
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], received {share}")
    # Relative to the largest, since squares overflow in half precision.
    values = at_least_single(singular_values)
    largest = values.abs().amax(1, keepdim=True)
    if not largest.isfinite().all():
        unfit = int((~largest.isfinite()).sum())
        raise ValueError(f"singular values must be finite: {unfit} of {len(values)} rows have NaN or infinity")
    held = (values / largest.masked_fill(largest == 0, 1)).square().cumsum(1)
    # Compared with the last partial sum itself, so that a share of 1 is reached whatever the rounding.
    return (held < share * held[:, -1:]).sum(1) + 1


def off_manifold_share(directions: Tensor, basis: Tensor) -> Tensor:
    r"""How much of a direction leaves the tangent space: the sine of the angle between them.

    .. math:: \| v - U U^T v \|_2 / \| v \|_2

    Range [0, 1], no unit; lower is better for the change x' - x of a counterfactual. 0 for a direction of length zero,
    NaN for one that is not finite.

    Args:
        directions: v, (N, ...), of P values each, such as attributions or gradients.
        basis: U, orthonormal columns (N, P, d), from :func:`tangent_space`.

    Returns:
        Shares (N,).

    Raises:
        ValueError: The shapes do not fit.
    """
    flat = directions.flatten(1)
    if basis.dim() != 3 or flat.shape != basis.shape[:2]:
        raise ValueError(
            "directions (N, ...) of P values need a basis (N, P, d), "
            f"received {tuple(directions.shape)} and {tuple(basis.shape)}"
        )
    dtype = torch.promote_types(at_least_single(flat).dtype, basis.dtype)
    flat, basis = flat.to(dtype), basis.to(dtype)
    # Relative to the largest entry, since squares of very small and very large ones are 0 and infinite.
    largest = flat.abs().amax(1, keepdim=True)
    flat = flat / largest.masked_fill(largest == 0, 1)
    inside = (basis @ (basis.mT @ flat[:, :, None])).squeeze(2)
    shares: Tensor = torch.linalg.vector_norm(flat - inside, dim=1) / torch.linalg.vector_norm(flat, dim=1)
    return shares.masked_fill(largest[:, 0] == 0, 0.0).to(directions.dtype)


def _leading(decode: Decode, latents: Tensor, rank: int, batch_size: int) -> tuple[Tensor, Tensor]:
    # Left singular vectors (N, P, rank) and singular values (N, rank).
    own = checked_latents(latents, batch_size)
    rank = as_int("rank or dimension", rank)
    dimensions, pixels = own.shape[1], count_pixels(decode, own)
    if not 1 <= rank <= min(dimensions, pixels):
        raise ValueError(f"J is {pixels} × {dimensions}: there are 1 to {min(dimensions, pixels)}, received {rank}")
    width = rank + _OVERSAMPLING
    rows = (_POWER_ITERATIONS + 1) * (COLUMN_COST + 1) * width
    is_exact = min(pixels, COLUMN_COST * dimensions) <= rows or width > min(dimensions, pixels)
    pairs = []
    for part in torch.split(own, max(1, batch_size // (dimensions if is_exact else width))):
        if is_exact:
            vectors, values, _ = torch.linalg.svd(
                _finite(full_jacobian(decode, part, pixels, batch_size)), full_matrices=False
            )
        else:
            vectors, values = _randomised(decode, part, width, batch_size)
        pairs.append((vectors[..., :rank], values[..., :rank]))
    vectors, values = (torch.cat(parts).to(latents.dtype) for parts in zip(*pairs))
    return vectors, values


def _randomised(decode: Decode, latents: Tensor, width: int, batch_size: int) -> tuple[Tensor, Tensor]:
    # A basis of the leading left singular vectors, sharpened by power iterations; then the exact values within it.
    source = torch.Generator(device=latents.device).manual_seed(0)
    directions = torch.randn(width, latents.shape[1], generator=source, dtype=latents.dtype, device=latents.device)
    directions = directions.expand(len(latents), -1, -1)
    for _ in range(_POWER_ITERATIONS):
        basis = torch.linalg.qr(_finite(push(decode, latents, directions, batch_size)).mT).Q
        directions = torch.linalg.qr(pull(decode, latents, basis.mT, batch_size).mT).Q.mT
    basis = torch.linalg.qr(push(decode, latents, directions, batch_size).mT).Q
    rotation, values, _ = torch.linalg.svd(pull(decode, latents, basis.mT, batch_size), full_matrices=False)
    return basis @ rotation, values


def _finite(products: Tensor) -> Tensor:
    unfit = int((~products.isfinite().flatten(1).all(1)).sum())
    if unfit:
        raise ValueError(f"the Jacobian must be finite: at {unfit} of {len(products)} latents it has NaN or infinity")
    return products
