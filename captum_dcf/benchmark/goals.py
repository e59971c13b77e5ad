r"""What a benchmark is to reach for each example, given its label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from captum_dcf.search import AtLeast, AtMost, Goal, LeaveClass, Near, ReachClass

__all__ = ["GOALS", "GoalOf", "at_least", "at_most", "leave", "near", "reach", "shift", "value_of", "with_confidence"]

GoalOf = Callable[[Tensor], Goal]


def reach(label: int) -> GoalOf:
    r"""One class for all examples.

    Examples:
        >>> reach(9)(torch.tensor([4, 7])).label
        tensor([9, 9])
    """
    if isinstance(label, bool) or not isinstance(label, int):
        raise TypeError(f"the class to reach must be an int, received {label!r}")
    if label < 0:
        raise ValueError(f"the class to reach must be at least 0, received {label}")
    return lambda labels: ReachClass(torch.full_like(labels, label, dtype=torch.int64))


def leave(wanted: bool = True) -> GoalOf:
    r"""Any class but the one that an example is labelled with."""
    if wanted is not True:
        raise ValueError(f"leave must be true, received {wanted!r}")
    return LeaveClass


def at_least(value: float) -> GoalOf:
    r"""A scalar output of at least ``value`` for all examples, in the model's own unit."""
    number = _number(value)
    return lambda labels: AtLeast(torch.full_like(labels, number, dtype=torch.float32))


def at_most(value: float) -> GoalOf:
    r"""A scalar output of at most ``value`` for all examples, in the model's own unit."""
    number = _number(value)
    return lambda labels: AtMost(torch.full_like(labels, number, dtype=torch.float32))


def near(value: float, tolerance: float = 0.05) -> GoalOf:
    r"""A scalar output within ``tolerance`` of ``value`` for all examples, in the model's own unit."""
    number = _number(value)
    Near(number, tolerance)
    return lambda labels: Near(torch.full_like(labels, number, dtype=torch.float32), tolerance)


def shift(change: float) -> GoalOf:
    r"""A scalar output that differs from the example's label by ``change`` or more in that direction.

    Examples:
        >>> shift(-0.5)(torch.tensor([2.0]))
        AtMost(value=tensor([1.5000]))
    """
    if not _number(change):
        raise ValueError("the change of a value must not be 0")
    return lambda labels: (AtLeast if change > 0 else AtMost)(labels.float() + change)


GOALS: dict[str, Callable[..., GoalOf]] = {
    "reach": reach,
    "leave": leave,
    "at_least": at_least,
    "at_most": at_most,
    "near": near,
    "shift": shift,
}


def with_confidence(goal: Goal, confidence: float | None) -> Goal:
    r"""The goal with another confidence; as it is where none is given.

    Raises:
        ValueError: The goal is a value and has no confidence.
    """
    if confidence is None:
        return goal
    if not isinstance(goal, (ReachClass, LeaveClass)):
        raise ValueError(f"only classes are reached with a confidence, received {confidence} for {type(goal).__name__}")
    return replace(goal, confidence=confidence)


def value_of(goal: Goal) -> Tensor | None:
    r"""The class or the value to be reached, (N,); None where the goal names neither, such as a class to leave."""
    if isinstance(goal, LeaveClass):
        return None
    value = getattr(goal, "label", getattr(goal, "value", None))
    return None if value is None else torch.as_tensor(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"a value must be a number, received {value!r}")
    if not isfinite(value):
        raise ValueError(f"a value must be finite, received {value}")
    return value
