r"""Small operations on a batch, one row per example."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["finite_rows", "half_way", "like", "row_norm"]


def finite_rows(values: Tensor) -> Tensor:
    r"""Whether all values of each example are finite, bool (n,)."""
    return values.isfinite().reshape(len(values), -1).all(1)


def half_way(start: Tensor, end: Tensor) -> Tensor:
    r"""The points in the middle of both; coordinates that are equal stay so, infinite ones too."""
    return torch.where(start == end, start, start + (end - start) / 2)


def like(mask: Tensor, values: Tensor) -> Tensor:
    r"""A mask (n,) in a shape that chooses among examples (n, ...)."""
    return mask.view(-1, *[1] * (values.ndim - 1))


def row_norm(values: Tensor) -> Tensor:
    r"""Euclidean length of each row, (n, 1)."""
    # In half precision the squares of many coordinates leave the finite numbers.
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    return wide.square().sum(1, keepdim=True).sqrt().to(values)
