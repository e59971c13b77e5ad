r"""Geometry of a decoder g: Jacobian, induced metric, spectrum and tangent space of the manifold it parametrises.

With J = ∂g/∂z and its singular values σ, the inverse induced metric is J Jᵀ; directions of large σ span the tangent
space of the data manifold, the others leave it (Dombrowski et al., 2024, https://arxiv.org/abs/2206.05075).

``decode`` is a function of latents (N, D), such as ``generator.decode``, that gives one image per latent, each of them
independent of the others. Where D is far below P, and for a ``rank``, it must support forward-mode differentiation, as
torch's own operations do. For a flow call these functions within ``generator.constant()``, which saves work. Images are
flattened to (N, P). Results have the dtype and device of the latents and carry no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = [
    "first_order_error",
    "inverse_metric",
    "jacobian",
    "local_dimension",
    "off_manifold_share",
    "spectrum",
    "tangent_space",
]

Decode = Callable[[Tensor], Tensor]

# Of the randomised range finder (Halko et al., 2011, https://arxiv.org/abs/0909.4061).
_OVERSAMPLING = 10
_POWER_ITERATIONS = 2

# How much a column of J costs, in rows: measured on flows. A row is a backward pass over a graph that is built once, a
# column a whole forward pass with its tangent.
_COLUMN_COST = 4


def jacobian(decode: Decode, latents: Tensor, batch_size: int = 64) -> Tensor:
    r"""The Jacobian J = ∂g/∂z at each latent, by rows (reverse mode), or by columns (forward mode) if D is far below P.

    Args:
        decode: Latents (N, D) to images.
        latents: (N, D).
        batch_size: Rows or columns computed at once.

    Returns:
        (N, P, D) for images of P values. For large images this is large: see :func:`spectrum` with a ``rank``.

    Raises:
        ValueError: The latents are not (N, D), or there are none.
    """
    _check_latents(latents)
    dimensions, pixels = latents.shape[1], _pixels(decode, latents)
    product, size = (_pull, pixels) if pixels <= _COLUMN_COST * dimensions else (_push, dimensions)
    units = torch.eye(size, dtype=latents.dtype, device=latents.device)
    parts = []
    for part in latents.split(max(1, batch_size // size)):
        parts.append(product(decode, part, units.expand(len(part), -1, -1), batch_size))
    return torch.cat(parts) if product is _pull else torch.cat(parts).mT


def inverse_metric(decode: Decode, latents: Tensor, batch_size: int = 64) -> Tensor:
    r"""The inverse of the induced metric, J Jᵀ: what turns a gradient in pixels into the move of a latent step.

    Args:
        decode: Latents (N, D) to images.
        latents: (N, D).
        batch_size: Rows or columns of J computed at once.

    Returns:
        Symmetric matrices (N, P, P) for images of P values, without negative eigenvalues.

    Raises:
        ValueError: The latents are not (N, D), or there are none.
    """
    columns = jacobian(decode, latents, batch_size)
    return columns @ columns.mT


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
        ValueError: The latents are not (N, D), there are none, or ``rank`` is not from 1 to min(D, P).
    """
    if rank is not None:
        return _leading(decode, latents, rank, batch_size)[1]
    _check_latents(latents)
    # One part after the other, so that one Jacobian of a large image is held at once.
    parts = latents.split(max(1, batch_size // latents.shape[1]))
    return torch.cat([torch.linalg.svdvals(jacobian(decode, part, batch_size)) for part in parts])


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
        ValueError: The latents are not (N, D), there are none, or ``dimension`` is not from 1 to min(D, P).
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
        ValueError: The singular values are not (N, K), or ``share`` is not in (0, 1].

    Examples:
        >>> local_dimension(torch.tensor([[3.0, 3.0, 0.1], [5.0, 0.2, 0.1]]))
        tensor([2, 1])
    """
    if singular_values.dim() != 2 or singular_values.shape[1] == 0:
        raise ValueError(f"singular values must have the shape (N, K), received {tuple(singular_values.shape)}")
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], received {share}")
    held = singular_values.square().cumsum(1)
    # Compared with the last partial sum itself, so that a share of 1 is reached whatever the rounding.
    return (held < share * held[:, -1:]).sum(1) + 1


def off_manifold_share(directions: Tensor, basis: Tensor) -> Tensor:
    r"""How much of a direction leaves the tangent space: the sine of the angle between them.

    .. math:: \| v - U U^T v \|_2 / \| v \|_2

    Range [0, 1], no unit; lower is better for the change x' - x of a counterfactual. 0 for a direction of length zero.

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
    inside = (basis @ (basis.mT @ flat[:, :, None])).squeeze(2)
    length = torch.linalg.vector_norm(flat, dim=1)
    outside = torch.linalg.vector_norm(flat - inside, dim=1)
    return torch.where(length > 0, outside / length, torch.zeros_like(length))


def first_order_error(
    decode: Decode, objective: Callable[[Tensor], Tensor], latents: Tensor, step_size: float
) -> Tensor:
    r"""How far one gradient step in latent space is from what the induced metric predicts for the image.

    A step z + λ ∇(f∘g)(z) moves the image by λ J Jᵀ ∇f + O(λ²); this is the length of the remainder.

    .. math:: \| g(z + \lambda \nabla_z f(g(z))) - g(z) - \lambda J J^T \nabla_x f(g(z)) \|_2

    Divided by λ² it stays bounded as λ falls, where decoder and objective are smooth (networks with ReLU are, but for
    latents whose step crosses a kink) and until rounding takes over: in float32 below λ of about 1e-3, so use float64
    latents and modules for smaller ones.

    Args:
        decode: Latents (N, D) to images.
        objective: f, images to what is ascended, (N,), such as the logit of the target class.
        latents: (N, D).
        step_size: λ.

    Returns:
        Lengths (N,), in pixel values.

    Raises:
        ValueError: The latents are not (N, D), there are none, or the objective does not give (N,).
    """
    _check_latents(latents)
    with torch.enable_grad():
        leaf = latents.detach().requires_grad_()
        images = decode(leaf)
        values = objective(images)
        if values.shape != latents.shape[:1]:
            raise ValueError(f"the objective must give ({len(latents)},), received {tuple(values.shape)}")
        [gradient] = torch.autograd.grad(values.sum(), leaf)
    with torch.no_grad():
        moved = decode(latents + step_size * gradient) - images
    predicted = step_size * _push(decode, latents, gradient[:, None], batch_size=len(latents)).squeeze(1)
    return torch.linalg.vector_norm(moved.flatten(1) - predicted, dim=1)


def _leading(decode: Decode, latents: Tensor, rank: int, batch_size: int) -> tuple[Tensor, Tensor]:
    # Left singular vectors (N, P, rank) and singular values (N, rank).
    _check_latents(latents)
    dimensions, pixels = latents.shape[1], _pixels(decode, latents)
    if not 1 <= rank <= min(dimensions, pixels):
        raise ValueError(f"J is {pixels} × {dimensions}: there are 1 to {min(dimensions, pixels)}, received {rank}")
    width = rank + _OVERSAMPLING
    rows = (_POWER_ITERATIONS + 1) * (_COLUMN_COST + 1) * width
    is_exact = min(pixels, _COLUMN_COST * dimensions) <= rows or width > min(dimensions, pixels)
    triples = []
    for part in latents.split(max(1, batch_size // (dimensions if is_exact else width))):
        if is_exact:
            vectors, values, _ = torch.linalg.svd(jacobian(decode, part, batch_size), full_matrices=False)
        else:
            vectors, values = _randomised(decode, part, width, batch_size)
        triples.append((vectors[..., :rank], values[..., :rank]))
    return torch.cat([vectors for vectors, _ in triples]), torch.cat([values for _, values in triples])


def _randomised(decode: Decode, latents: Tensor, width: int, batch_size: int) -> tuple[Tensor, Tensor]:
    # A basis of the leading left singular vectors, sharpened by power iterations; then the exact values within it.
    source = torch.Generator(device=latents.device).manual_seed(0)
    directions = torch.randn(width, latents.shape[1], generator=source, dtype=latents.dtype, device=latents.device)
    directions = directions.expand(len(latents), -1, -1)
    for _ in range(_POWER_ITERATIONS):
        basis = torch.linalg.qr(_push(decode, latents, directions, batch_size).mT).Q
        directions = torch.linalg.qr(_pull(decode, latents, basis.mT, batch_size).mT).Q.mT
    basis = torch.linalg.qr(_push(decode, latents, directions, batch_size).mT).Q
    rotation, values, _ = torch.linalg.svd(_pull(decode, latents, basis.mT, batch_size), full_matrices=False)
    return basis @ rotation, values


def _push(decode: Decode, latents: Tensor, directions: Tensor, batch_size: int) -> Tensor:
    # J v for K directions v per latent, (N, K, D): (N, K, P).
    number = directions.shape[1]
    points = latents.detach().repeat_interleave(number, 0).split(batch_size)
    tangents = directions.flatten(0, 1).split(batch_size)
    with torch.no_grad():
        products = [torch.func.jvp(decode, (z,), (v,))[1] for z, v in zip(points, tangents)]
    return torch.cat(products).flatten(1).unflatten(0, (len(latents), number))


def _pull(decode: Decode, latents: Tensor, directions: Tensor, batch_size: int) -> Tensor:
    # uᵀ J for K directions u per latent, (N, K, P): (N, K, D). Copies of each latent are decoded once; every backward
    # pass then serves as many directions.
    number = directions.shape[1]
    passes = math.ceil(len(latents) * number / batch_size)
    copies = math.ceil(number / passes)
    with torch.enable_grad():
        leaf = latents.detach().repeat_interleave(copies, 0).requires_grad_()
        images = decode(leaf)
    products = []
    for part in directions.split(copies, dim=1):
        padded = nn.functional.pad(part, (0, 0, 0, copies - part.shape[1]))
        [product] = torch.autograd.grad(images, leaf, padded.reshape(images.shape), retain_graph=True)
        products.append(product.unflatten(0, (len(latents), copies)))
    return torch.cat(products, dim=1)[:, :number]


def _pixels(decode: Decode, latents: Tensor) -> int:
    with torch.no_grad():
        return decode(latents[:1]).numel()


def _check_latents(latents: Tensor) -> None:
    if latents.dim() != 2 or latents.numel() == 0:
        raise ValueError(f"latents must have the shape (N, D), none of them 0, received {tuple(latents.shape)}")
