r"""Small operations on a batch, one row per example."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["finite_rows", "half_way", "like"]


def finite_rows(values: Tensor) -> Tensor:
    r"""Whether all values of each example are finite, bool (n,)."""
    return values.isfinite().reshape(len(values), -1).all(1)


def half_way(start: Tensor, end: Tensor) -> Tensor:
    r"""The points in the middle of both; coordinates that are equal stay so, infinite ones too."""
    return torch.where(start == end, start, start + (end - start) / 2)


def like(mask: Tensor, values: Tensor) -> Tensor:
    r"""A mask (n,) in a shape that chooses among examples (n, ...)."""
    return mask.view(-1, *[1] * (values.ndim - 1))
