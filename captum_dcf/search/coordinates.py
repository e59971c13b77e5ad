r"""Coordinates: what a search moves in. A generator has them, pixels are some too.

Whatever stands behind them, a search asks through :func:`encode` and :func:`decode`, which hand over tensors that may
be written into, check what comes back, and say whose error it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from captum_dcf.search.memory import is_out_of_memory

__all__ = ["Coordinates", "clamp", "decode", "encode"]

# Share of the data range within which a pixel counts as being at its bound, a fortieth of one of 256 grey levels.
AT_BOUND = 1e-4


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
    name = type(coordinates).__name__
    bounds = coordinates.data_range
    with _naming(coordinates, "encode images", images), torch.no_grad():
        points = coordinates.encode(images.clone() if bounds is None else images.clamp(*bounds))
    _check_tensor(f"{name}.encode", points)
    if points.ndim != 2 or len(points) != len(images):
        raise ValueError(f"{name}.encode must give ({len(images)}, D), received {tuple(points.shape)}")
    return points.detach()


def decode(coordinates: Coordinates, points: Tensor, like: Tensor) -> Tensor:
    r"""The images of points, (n, ...), checked to have the shape of ``like``'s, and of its dtype.

    Raises:
        TypeError: What ``decode`` gives is no tensor.
        ValueError: It cannot decode such points, or its images have another shape.
    """
    name = type(coordinates).__name__
    with _naming(coordinates, "decode latents", points):
        images = coordinates.decode(points.clone())
    _check_tensor(f"{name}.decode", images)
    if images.shape != (len(points), *like.shape[1:]):
        received, wanted = tuple(images.shape[1:]), tuple(like.shape[1:])
        raise ValueError(f"{name}.decode gives images of shape {received}, the inputs have {wanted}")
    if points.requires_grad and not images.requires_grad:
        raise ValueError(
            f"{name}.decode gives images that do not depend differentiably on the latents: "
            "is there a no_grad, a detach or a detour through numpy in it?"
        )
    return images.to(like.dtype)


def clamp(images: Tensor, data_range: tuple[float, float] | None) -> Tensor:
    r"""Images within the range, with pixels that are almost at a bound put on it; gradients pass through unchanged."""
    return images if data_range is None else _StraightThroughClamp.apply(images, *data_range)


class _StraightThroughClamp(torch.autograd.Function):
    # A pixel at a bound keeps its gradient: whether rounding left it just inside or just outside must not matter. For
    # the same reason one that is almost at a bound is put there. An even background otherwise carries rounding noise,
    # and which of its pixels wins a max-pool, hence the gradient, would depend on the size of the batch.

    @staticmethod
    def forward(ctx: Any, decoded: Tensor, low: float, high: float) -> Tensor:
        margin = AT_BOUND * (high - low)
        inside = decoded.clamp(low, high)
        inside = torch.where(inside < low + margin, low, inside)
        return torch.where(inside > high - margin, high, inside)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None


def _check_tensor(name: str, value: Any) -> None:
    # Many an encoder gives a pair of mean and variance.
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must return a tensor, received {type(value).__name__}; wrap it, to return the tensor")


@contextmanager
def _naming(coordinates: Any, what: str, values: Tensor) -> Iterator[None]:
    """A block whose errors of shape, type and device say whose they are and what they were about."""
    try:
        yield
    except (RuntimeError, IndexError, NotImplementedError) as error:
        kinds = RuntimeError, IndexError, NotImplementedError
        if type(error) not in kinds or is_out_of_memory(error):
            raise
        parameters = coordinates.parameters() if isinstance(coordinates, torch.nn.Module) else iter(())
        accepted = next((f", its parameters are {p.dtype} on {p.device}" for p in parameters), "")
        raise ValueError(
            f"{type(coordinates).__name__} cannot {what} of shape {tuple(values.shape)}, {values.dtype} on "
            f"{values.device}{accepted}: {error}"
        ) from error
