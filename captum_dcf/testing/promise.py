r"""Promises: what is checked, and what is raised where one does not hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

__all__ = ["BrokenPromise", "check_images", "is_near", "largest", "promise", "run"]


class BrokenPromise(AssertionError):
    r"""A promise does not hold; the message says which, and what was seen."""


def run(checks: list[Callable[..., None]], *arguments: Any) -> list[str]:
    r"""Calls each check and returns their names."""
    for check in checks:
        check(*arguments)
    return [check.__name__.lstrip("_") for check in checks]


def check_images(name: str, values: Any) -> None:
    r"""Raises a TypeError or ValueError for what is no floating point tensor of two rows or more."""
    if not isinstance(values, Tensor) or not values.is_floating_point():
        received = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"{name} must be a floating point tensor, received {received}")
    if values.ndim == 0 or len(values) < 2:
        raise ValueError(f"{name} must hold two examples or more, received the shape {tuple(values.shape)}")


def promise(holds: Any, what: str) -> None:
    r"""Raises a BrokenPromise that says what does not hold."""
    if not bool(holds):
        raise BrokenPromise(what)


def is_near(one: Tensor, other: Tensor, tolerance: float) -> bool:
    r"""Whether two tensors differ by no more than a share of the largest entry, or than the tolerance itself."""
    return one.shape == other.shape and bool(((one - other).abs() <= tolerance * max(1.0, largest(other))).all())


def largest(values: Tensor) -> float:
    r"""The largest absolute value, 0 where there is none."""
    return float(values.detach().abs().max()) if values.numel() else 0.0
