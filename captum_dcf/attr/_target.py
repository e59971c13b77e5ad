r"""From every form of ``target`` that Captum accepts to one class index per example."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from captum_dcf.search.numbers import is_truth
from captum_dcf.search.target import ACCEPTED

__all__ = ["parse_target"]


def parse_target(target: Any, examples: int, device: torch.device) -> Tensor:
    r"""Indices into the dimensions of an output behind the batch, int64 (N, K); the first of them is the class.

    Raises:
        TypeError: A bool, a float or something that is no index.
        ValueError: The number of targets is not the number of examples.
    """
    if isinstance(target, Tensor):
        indices = _from_tensor(target, device)
        indices = indices.expand(examples, -1) if target.numel() == 1 else indices
    elif isinstance(target, list):
        rows = [_as_tuple(entry) for entry in target]
        if len({len(row) for row in rows}) > 1:
            raise ValueError(f"all tuples of target must have one length, received {target}")
        indices = torch.tensor(rows or [()], dtype=torch.int64, device=device)[: len(rows)]
    else:
        indices = torch.tensor([_as_tuple(target)], device=device).expand(examples, -1)
    if len(indices) != examples:
        raise ValueError(f"target has {len(indices)} entries for {examples} examples; accepted are {ACCEPTED}")
    return indices


def _from_tensor(target: Tensor, device: torch.device) -> Tensor:
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"target must hold integers, received a tensor of {target.dtype}; accepted are {ACCEPTED}")
    if target.ndim > 1:
        raise ValueError(
            f"target must have at most one dimension, received {tuple(target.shape)}; accepted are {ACCEPTED}"
        )
    return target.to(device=device, dtype=torch.int64).reshape(-1, 1)


def _as_tuple(entry: Any) -> tuple[int, ...]:
    parts = entry if isinstance(entry, tuple) else (entry,)
    try:
        if not parts or any(is_truth(part) for part in parts):
            raise TypeError
        indices = tuple(operator.index(part) for part in parts)
    except TypeError:
        raise TypeError(f"target cannot be {entry!r} ({type(entry).__name__}); accepted are {ACCEPTED}") from None
    if any(abs(index) >= 2**31 for index in indices):
        raise ValueError(f"target {entry} is out of range for any output")
    return indices
