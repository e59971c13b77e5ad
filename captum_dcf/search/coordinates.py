r"""Coordinates: what a search moves in. A generator has them, pixels are some too.

Whatever stands behind them, a search asks through :func:`encode` and :func:`decode`, which hand over tensors that may
be written into, check what comes back, and say whose error it was.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from captum_dcf.search.memory import is_out_of_memory
from captum_dcf.search.rows import like, row_norm

__all__ = ["Coordinates", "Decoded", "decode", "encode"]

# Share of the data range within which a pixel counts as being at its bound, a fortieth of one of 256 grey levels.
AT_BOUND = 1e-4
# Share of the data range from which on a pixel counts as being beyond it, a quarter of a grey level.
BEYOND = 1e-3
# What torch raises for shapes, types and devices that do not fit.
ERRORS = RuntimeError, IndexError, NotImplementedError


@runtime_checkable
class Coordinates(Protocol):
    r"""What a search needs of coordinates; ``captum_dcf.generators.Generator`` is the module that has them.

    Attributes:
        exact: Whether ``decode(encode(x))`` is x up to rounding for every x.
        free: Slice or int64 index of the D coordinates that a search may move.
        data_range: Least and greatest pixel value, None where pixels have no bounds.
    """

    exact: bool
    free: slice | Tensor
    data_range: tuple[float, float] | None

    def encode(self, x: Tensor) -> Tensor:
        r"""Images (n, ...) to points (n, D). A search calls it without gradients: one that needs them enables them."""

    def decode(self, z: Tensor) -> Tensor:
        r"""Points (n, D) to images (n, ...), differentiable."""

    def typical_length(self, z: Tensor) -> Tensor:
        r"""The Euclidean length that a point typically has, a tensor without dimensions."""

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Log-density of images in nats, (n,); a TypeError where there is none."""

    def check_ready(self) -> None:
        r"""Raises a ValueError if a search cannot use them yet, such as a flow that has seen no data."""

    def constant(self) -> AbstractContextManager[None]:
        r"""A block in which what they depend on does not change."""


def encode(coordinates: Coordinates, images: Tensor) -> Tensor:
    r"""The points of images, detached (n, D). Pixels beyond the range are put on its bounds first.

    Raises:
        TypeError: What ``encode`` gives is no tensor.
        ValueError: It cannot encode such images, or its points are not (n, D).
    """
    bounds = coordinates.data_range
    try:
        with torch.no_grad():
            points = coordinates.encode(images.clone() if bounds is None else images.clamp(*bounds))
    except ERRORS as error:
        _explain(error, coordinates, "encode images", images)
        raise
    _check_tensor(coordinates, "encode", points)
    if points.ndim != 2 or len(points) != len(images):
        name, received = type(coordinates).__name__, tuple(points.shape)
        raise ValueError(f"{name}.encode must give ({len(images)}, D), received {received}")
    return points.detach()


class Decoded(NamedTuple):
    r"""The images of points as a model is shown them.

    Attributes:
        images: Within the range, (n, ...), those pixels that are almost at a bound on it.
        finite: Whether each decode was, bool (n,).
        overshoot: How far the pixel furthest beyond the range was beyond it, as a share of the range, (n,).
        log_prob: The log-density of what was decoded in nats, (n,), where decoding tells it; else None.
    """

    images: Tensor
    finite: Tensor
    overshoot: Tensor
    log_prob: Tensor | None


def decode(coordinates: Coordinates, points: Tensor, like: Tensor) -> Decoded:
    r"""The images of points as a model is shown them, and what else decoding tells.

    Args:
        coordinates: Where the points lie.
        points: (n, D).
        like: Images of the shape, (N, ...), and the dtype that those of the points must have.

    Raises:
        TypeError: What ``decode`` gives is no tensor.
        ValueError: It cannot decode such points, or its images have another shape or no gradient.
    """
    tells_density = getattr(coordinates, "decode_with_log_prob", None)
    log_prob = None
    try:
        if tells_density is None:
            images = coordinates.decode(points.clone())
        else:
            images, log_prob = tells_density(points.clone())
    except ERRORS as error:
        _explain(error, coordinates, "decode latents", points)
        raise
    if not isinstance(images, Tensor) or images.shape != (len(points), *like.shape[1:]):
        _check_tensor(coordinates, "decode", images)
        name, received, wanted = type(coordinates).__name__, tuple(images.shape[1:]), tuple(like.shape[1:])
        raise ValueError(f"{name}.decode gives images of shape {received}, the inputs have {wanted}")
    if points.requires_grad and not images.requires_grad:
        raise ValueError(
            f"{type(coordinates).__name__}.decode gives images that do not depend differentiably on the latents: "
            "is there a no_grad, a detach or a detour through numpy in it?"
        )
    images = images.to(like.dtype)
    finite = images.detach().isfinite().flatten(1).all(1)
    overshoot = torch.zeros(len(images), dtype=images.dtype, device=images.device)
    if coordinates.data_range is not None:
        low, high = coordinates.data_range
        shown = _Clamp.apply(images, low, high)
        overshoot = (images.detach() - shown.detach()).abs().flatten(1).amax(1) / (high - low)
        images = shown
    return Decoded(images, finite, overshoot, log_prob)


class _Clamp(torch.autograd.Function):
    # A pixel at a bound keeps its gradient: whether rounding left it just inside or just outside must not matter. For
    # the same reason one that is almost at a bound is put there. An even background otherwise carries rounding noise,
    # and which of its pixels wins a max-pool, hence the gradient, would depend on the size of the batch.
    #
    # The model never sees how far beyond the range a pixel is, so nothing in its gradient keeps it from going on: with
    # gradients that pass unchanged, decodes reach thousands of ranges beyond in ten steps. Where a pixel is beyond, the
    # part of the gradient that would push it further is left out, and the whole is pulled back by the overshoot, in
    # units of the range, times the length of the gradient.

    @staticmethod
    def forward(ctx: Any, decoded: Tensor, low: float, high: float) -> Tensor:
        margin = AT_BOUND * (high - low)
        inside = decoded.clamp(low, high)
        inside = torch.where(inside < low + margin, low, inside)
        inside = torch.where(inside > high - margin, high, inside)
        ctx.save_for_backward((decoded - inside) / (high - low))
        return inside

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        [overshoot] = ctx.saved_tensors
        beyond = overshoot.abs() > BEYOND
        # A search goes against the gradient.
        kept = torch.where(beyond & (gradient * overshoot < 0), 0, gradient)
        length = like(row_norm(gradient.flatten(1)).squeeze(1), gradient)
        return kept + length * torch.where(beyond, overshoot, 0), None, None


def _check_tensor(coordinates: Any, method: str, value: Any) -> None:
    # Many an encoder gives a pair of mean and variance.
    if not isinstance(value, Tensor):
        name, received = f"{type(coordinates).__name__}.{method}", type(value).__name__
        raise TypeError(f"{name} must return a tensor, received {received}; wrap it, to return the tensor")


def _explain(error: Exception, coordinates: Any, what: str, values: Tensor) -> None:
    """Raises a ValueError that says whose an error of shape, type or device is, and what it is about."""
    if type(error) not in ERRORS or is_out_of_memory(error):
        return
    parameters = coordinates.parameters() if isinstance(coordinates, torch.nn.Module) else iter(())
    accepted = next((f", its parameters are {p.dtype} on {p.device}" for p in parameters), "")
    raise ValueError(
        f"{type(coordinates).__name__} cannot {what} of shape {tuple(values.shape)}, {values.dtype} on "
        f"{values.device}{accepted}: {error}"
    ) from error
