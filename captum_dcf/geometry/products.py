r"""The Jacobian of a decoder, products with it, and what follows from it for a step in latent space."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = [
    "COLUMN_COST",
    "Decode",
    "as_int",
    "at_least_single",
    "checked_latents",
    "count_pixels",
    "first_order_error",
    "full_jacobian",
    "inverse_metric",
    "jacobian",
    "pull",
    "push",
]

Decode = Callable[[Tensor], Tensor]

# How much a column of J costs, in rows: measured on flows. A row is a backward pass over a graph that is built once, a
# column a whole forward pass with its tangent.
COLUMN_COST = 4


@torch.inference_mode(False)
def jacobian(decode: Decode, latents: Tensor, batch_size: int = 64) -> Tensor:
    r"""The Jacobian J = ∂g/∂z at each latent, by rows (reverse mode), or by columns (forward mode) if D is far below P.

    Args:
        decode: Latents (N, D) to images.
        latents: (N, D).
        batch_size: Rows or columns computed at once.

    Returns:
        (N, P, D) for images of P values. For large images this is large: see :func:`spectrum` with a ``rank``.

    Raises:
        ValueError: The latents are not (N, D), there are none, or ``decode`` has no gradient.
    """
    own = checked_latents(latents, batch_size)
    return full_jacobian(decode, own, count_pixels(decode, own), batch_size).to(latents.dtype)


@torch.inference_mode(False)
def inverse_metric(decode: Decode, latents: Tensor, batch_size: int = 64) -> Tensor:
    r"""The inverse of the induced metric, J Jᵀ: what turns a gradient in pixels into the move of a latent step.

    Args:
        decode: Latents (N, D) to images.
        latents: (N, D).
        batch_size: Rows or columns of J computed at once.

    Returns:
        Symmetric matrices (N, P, P) for images of P values, without negative eigenvalues.

    Raises:
        ValueError: The latents are not (N, D), there are none, or ``decode`` has no gradient.
    """
    own = checked_latents(latents, batch_size)
    columns = full_jacobian(decode, own, count_pixels(decode, own), batch_size)
    return (columns @ columns.mT).to(latents.dtype)


@torch.inference_mode(False)
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
        ValueError: The latents are not (N, D), there are none, or the objective does not give (N,) or has no gradient.
    """
    own = checked_latents(latents)
    with torch.enable_grad():
        leaf = own.clone().requires_grad_()
        images = decode(leaf.clone())
        values = objective(images.clone())
        if values.shape != own.shape[:1]:
            raise ValueError(f"the objective must give ({len(own)},), received {tuple(values.shape)}")
        if not values.requires_grad:
            raise ValueError("decode and objective must be differentiable: the objective's values have no gradient")
        [gradient] = torch.autograd.grad(values.sum(), leaf)
    with torch.no_grad():
        moved = at_least_single(decode(own + step_size * gradient)) - images
    predicted = step_size * push(decode, own, gradient[:, None], batch_size=len(own)).squeeze(1)
    lengths: Tensor = torch.linalg.vector_norm(moved.flatten(1) - predicted, dim=1)
    return lengths.to(latents.dtype)


def full_jacobian(decode: Decode, latents: Tensor, pixels: int, batch_size: int) -> Tensor:
    dimensions = latents.shape[1]
    product, size = (pull, pixels) if pixels <= COLUMN_COST * dimensions else (push, dimensions)
    units = torch.eye(size, dtype=latents.dtype, device=latents.device)
    parts = []
    for part in torch.split(latents, max(1, batch_size // size)):
        parts.append(product(decode, part, units.expand(len(part), -1, -1), batch_size))
    return torch.cat(parts) if product is pull else torch.cat(parts).mT


def push(decode: Decode, latents: Tensor, directions: Tensor, batch_size: int) -> Tensor:
    # J v for K directions v per latent, (N, K, D): (N, K, P).
    number = directions.shape[1]
    points = torch.split(latents.repeat_interleave(number, 0), batch_size)
    tangents = torch.split(directions.flatten(0, 1).to(latents.dtype), batch_size)
    with torch.no_grad():
        products = [torch.func.jvp(decode, (z,), (v,))[1] for z, v in zip(points, tangents)]
    return at_least_single(torch.cat(products)).reshape(len(latents), number, -1)


def pull(decode: Decode, latents: Tensor, directions: Tensor, batch_size: int) -> Tensor:
    # uᵀ J for K directions u per latent, (N, K, P): (N, K, D). Copies of each latent are decoded once; every backward
    # pass then serves as many directions.
    number = directions.shape[1]
    passes = math.ceil(len(latents) * number / batch_size)
    copies = math.ceil(number / passes)
    with torch.enable_grad():
        leaf = latents.repeat_interleave(copies, 0).requires_grad_()
        images = decode(leaf.clone())
    products = []
    for part in torch.split(directions.to(images.dtype), copies, dim=1):
        padded = nn.functional.pad(part, (0, 0, 0, copies - part.shape[1]))
        [product] = torch.autograd.grad(images, leaf, padded.reshape(images.shape), retain_graph=True)
        products.append(product.reshape(len(latents), copies, -1))
    return at_least_single(torch.cat(products, dim=1)[:, :number])


def count_pixels(decode: Decode, latents: Tensor) -> int:
    with torch.enable_grad():
        images = decode(latents[:1].clone().requires_grad_().clone())
    if not images.requires_grad:
        raise ValueError("decode must be differentiable: its images have no gradient with respect to the latents")
    return images.numel()


def checked_latents(latents: Tensor, batch_size: int = 1) -> Tensor:
    # A copy that may require gradients, which latents made in inference mode may not. Decoders get copies of it in
    # turn, since some write into their latents.
    if not latents.is_floating_point():
        raise TypeError(f"latents must be floating point, received {latents.dtype}")
    if latents.dim() != 2 or latents.numel() == 0:
        raise ValueError(f"latents must have the shape (N, D), none of them 0, received {tuple(latents.shape)}")
    if as_int("batch_size", batch_size) < 1:
        raise ValueError(f"batch_size must be at least 1, received {batch_size}")
    return latents.detach().clone()


def as_int(name: str, value: int) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, received {value!r}") from None


def at_least_single(values: Tensor) -> Tensor:
    # Decompositions do not exist in half precision.
    return values.to(torch.promote_types(values.dtype, torch.float32))
