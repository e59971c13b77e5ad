r"""Goals asked and their answers checked: a goal may be a user's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_dcf.search.goal import Goal, Verdict

__all__ = ["agreement", "verdict"]


def verdict(goal: Goal, output: Tensor, rows: Tensor, softening: float = 0.0) -> Verdict:
    r"""What a goal, which may be a user's own, says of each example, checked.

    Raises:
        TypeError: It gives something else than a Verdict of three tensors, of which the last is bool.
        ValueError: It does not give one value per example.
    """
    given = goal.judge(output, rows, softening)
    name = f"{type(goal).__name__}.judge"
    if not isinstance(given, tuple) or len(given) != 3:
        raise TypeError(f"{name} must give a Verdict of loss, score and reached, received {type(given).__name__}")
    for field, value in zip(Verdict._fields, given):
        _check_each(name, field, value, rows, is_bool=field == "reached")
    return Verdict(*given)


def agreement(goal: Goal, output: Tensor, other: Tensor, rows: Tensor) -> Tensor:
    r"""Whether two outputs mean the same to a goal, checked as in :func:`verdict`, bool (n,)."""
    given = goal.agrees(output, other, rows)
    _check_each(f"{type(goal).__name__}.agrees", "agreement", given, rows, is_bool=True)
    return given


def _check_each(name: str, field: str, value: Any, rows: Tensor, is_bool: bool) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must give tensors, received {type(value).__name__} as {field}")
    if value.shape != rows.shape:
        wanted, received = tuple(rows.shape), tuple(value.shape)
        raise ValueError(f"{name} must give one {field} per example, {wanted}, received {received}")
    if not (value.dtype == torch.bool if is_bool else value.is_floating_point()):
        kind = "bool" if is_bool else "floating point"
        raise TypeError(f"{name} must give {field} as {kind}, received {value.dtype}")
