r"""Goals: what the output of the model has to become, and how far it is from there.

A goal is asked about the examples at ``rows`` of the call; what differs between examples it keeps as one tensor (N,)
and picks ``value[rows]``. Losses fall towards the goal, scores rise.
"""

from __future__ import annotations

import operator
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_dcf.search.numbers import is_truth

__all__ = ["AtLeast", "AtMost", "Goal", "LeaveClass", "Near", "ReachClass", "Verdict", "check_confidence"]


class Verdict(NamedTuple):
    r"""What a goal says of a batch of outputs, one entry per example.

    Attributes:
        loss: What the search lowers, floating point (n,), differentiable in the output.
        score: How near the goal is, floating point (n,), higher is nearer: a probability for classes; for values the
            distance beyond the bound, in the model's unit.
        reached: Whether the goal is reached, bool (n,).
    """

    loss: Tensor
    score: Tensor
    reached: Tensor


class Goal(ABC):
    r"""When a search has arrived. A goal of your own is one method, :meth:`judge`.

    Attributes:
        of_classes: Whether :meth:`judge` wants logits of all classes, (n, C), whatever the model gives (probabilities,
            one logit). Where False it is given the output as it is.

    Examples:
        >>> class Within(Goal):
        ...     def __init__(self, low, high):
        ...         self.low, self.high = low, high
        ...     def judge(self, output, rows, softening=0.0):
        ...         value = output.flatten()
        ...         outside = (self.low - value).clamp_min(0) + (value - self.high).clamp_min(0)
        ...         return Verdict(outside, -outside, outside == 0)
        >>> Within(0.2, 0.4).judge(torch.tensor([0.3, 0.9]), torch.arange(2)).reached
        tensor([ True, False])
    """

    of_classes: ClassVar[bool] = False

    @abstractmethod
    def judge(self, output: Tensor, rows: Tensor, softening: float = 0.0) -> Verdict:
        r"""Loss, score and whether the goal is reached.

        Args:
            output: Outputs of the model, (n, ...).
            rows: The examples of the call they belong to, int64 (n,); the same one may come several times.
            softening: How much a loss of classes is softened, see :class:`ReachClass`. Has no part in score and
                reached; goals of values ignore it.
        """

    def agrees(self, output: Tensor, other: Tensor, rows: Tensor) -> Tensor:
        r"""Whether two outputs mean the same to this goal, bool (n,): whether a reconstruction kept the answer."""
        return Verdict(*self.judge(output, rows)).reached == Verdict(*self.judge(other, rows)).reached

    def check(self, output: Tensor) -> None:  # noqa: B027
        r"""Raises a ValueError if this goal cannot be asked about such outputs, those of inputs, (n, ...)."""

    def check_length(self, examples: int) -> None:  # noqa: B027
        r"""Raises a ValueError if this goal keeps values of another number of examples."""


@dataclass(frozen=True, eq=False)
class _ClassGoal(Goal):
    label: int | Tensor
    confidence: float = 0.99

    of_classes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", _checked_label(self.label))
        check_confidence(self.confidence)

    def agrees(self, output: Tensor, other: Tensor, rows: Tensor) -> Tensor:
        return output.argmax(1) == other.argmax(1)

    def check_length(self, examples: int) -> None:
        _check_one_each("class", self.label, examples)

    def check(self, output: Tensor) -> None:
        if output.ndim != 2 or output.shape[1] < 2:
            raise ValueError(
                "logits must have the shape (N, classes) with two classes or more, received "
                f"{tuple(output.shape)}; for one logit say output='binary_logit', for a value use AtLeast or its like, "
                "of more dimensions name one place, target=(class, ...)"
            )
        labels = torch.as_tensor(self.label)
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= output.shape[1]:
            wrong = low if low < 0 else high
            raise ValueError(f"class {wrong} is out of range: the output has the classes 0 to {output.shape[1] - 1}")
        if output.new_tensor(self.confidence) >= 1:
            raise ValueError(f"confidence {self.confidence} is 1 in the precision of outputs of {output.dtype}")

    def labels(self, rows: Tensor) -> Tensor:
        r"""The class of each of some examples, int64 (n,)."""
        return _of_rows(self.label, rows) if isinstance(self.label, Tensor) else torch.full_like(rows, self.label)


@dataclass(frozen=True, eq=False)
class ReachClass(_ClassGoal):
    r"""The class ``label`` with more than ``confidence``: the set S_{t,Λ} of the paper. The loss is the cross-entropy.

    A confident classifier names one rival class at a time, and the gradient of its cross-entropy turns with each change
    of rival. A method's ``softening`` divides the logits by so many of their own standard deviations (if that is more
    than one) before the cross-entropy is taken, so that all classes have a say in the direction. What counts as reached
    is not touched by it.

    Args:
        label: The class to reach, one for all or an integer tensor (N,).
        confidence: Λ, the probability above which the class counts as reached, in (0, 1).
    """

    label: int | Tensor
    confidence: float = 0.99

    def judge(self, output: Tensor, rows: Tensor, softening: float = 0.0) -> Verdict:
        labels = self.labels(rows)
        log_p = F.log_softmax(output, 1)
        score = _picked(log_p.detach(), labels).exp()
        # The target is asked to be the most likely class as well, which matters where confidence is below one half.
        reached = (log_p.argmax(1) == labels) & (score > self.confidence)
        return Verdict(-_picked(_softened(log_p, softening), labels), score, reached)


@dataclass(frozen=True, eq=False)
class LeaveClass(_ClassGoal):
    r"""Any class but ``label``: the others together have more than ``confidence``, and one of them is the most likely.

    Args:
        label: The class to leave, one for all or an integer tensor (N,).
        confidence: Probability that the other classes must exceed together, in (0, 1).
    """

    label: int | Tensor
    confidence: float = 0.99

    def judge(self, output: Tensor, rows: Tensor, softening: float = 0.0) -> Verdict:
        labels = self.labels(rows)
        log_p = F.log_softmax(output, 1)
        score = _rest(log_p.detach(), labels).exp()
        reached = (log_p.argmax(1) != labels) & (score > self.confidence)
        return Verdict(-_rest(_softened(log_p, softening), labels), score, reached)


@dataclass(frozen=True, eq=False)
class _ValueGoal(Goal):
    value: float | Tensor

    def __post_init__(self) -> None:
        if isinstance(self.value, Tensor):
            if self.value.is_complex() or self.value.dtype == torch.bool:
                raise TypeError(f"a value must be a number or a tensor (N,) of numbers, received {self.value.dtype}")
            object.__setattr__(self, "value", self.value.detach())
            finite = bool(self.value.isfinite().all())
        else:
            _check_number("a value", self.value, "a number or a tensor (N,)")
            # An int may be too large for a float, and NumPy's numbers warn where they are compared to such.
            number = self.value if isinstance(self.value, int) else float(self.value)
            finite = abs(number) <= sys.float_info.max
            object.__setattr__(self, "value", float(number) if finite else number)
        if not finite:
            raise ValueError(f"a value must be finite, received {self.value}")

    def check_length(self, examples: int) -> None:
        _check_one_each("value", self.value, examples)

    def check(self, output: Tensor) -> None:
        if output.numel() != len(output):
            raise ValueError(
                f"a value must have the shape (N,) or (N, 1), received {tuple(output.shape)}; pass target= to pick one"
            )
        largest = float(self.value.abs().max()) if isinstance(self.value, Tensor) else abs(self.value)
        if largest > torch.finfo(output.dtype).max:
            raise ValueError(f"a value of {largest} is beyond the range of outputs of {output.dtype}")

    def _difference(self, output: Tensor, rows: Tensor) -> Tensor:
        # A plain number is compared in the output's own precision: as a tensor it would be rounded to single first.
        value = _of_rows(self.value, rows).to(output) if isinstance(self.value, Tensor) else self.value
        return output.flatten() - value


@dataclass(frozen=True, eq=False)
class AtLeast(_ValueGoal):
    r"""A scalar output of at least ``value`` (one for all, or a tensor (N,)), in the model's own unit."""

    def judge(self, output: Tensor, rows: Tensor, softening: float = 0.0) -> Verdict:
        over = self._difference(output, rows)
        return Verdict(-over, over.detach(), over.detach() >= 0)


@dataclass(frozen=True, eq=False)
class AtMost(_ValueGoal):
    r"""A scalar output of at most ``value`` (one for all, or a tensor (N,)), in the model's own unit."""

    def judge(self, output: Tensor, rows: Tensor, softening: float = 0.0) -> Verdict:
        over = self._difference(output, rows)
        return Verdict(over, -over.detach(), over.detach() <= 0)


@dataclass(frozen=True, eq=False)
class Near(_ValueGoal):
    r"""A scalar output within ``tolerance`` of ``value`` (one for all, or a tensor (N,)), in the model's own unit."""

    value: float | Tensor
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_number("tolerance", self.tolerance)
        if not 0 < self.tolerance < float("inf"):
            raise ValueError(f"tolerance must be positive and finite, received {self.tolerance}")

    def judge(self, output: Tensor, rows: Tensor, softening: float = 0.0) -> Verdict:
        off = self._difference(output, rows)
        distance = off.detach().abs()
        return Verdict(off.square(), -distance, distance <= self.tolerance)


def _picked(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(1, labels[:, None]).squeeze(1)


def _rest(log_p: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of all classes but one each, (n,)."""
    return log_p.scatter(1, labels[:, None], -torch.inf).logsumexp(1)


def _softened(log_p: Tensor, softening: float) -> Tensor:
    """Log-probabilities at a temperature of ``softening`` standard deviations of the logits, never below one."""
    if not softening:
        return log_p
    # A class that the model rules out (a logit of -inf) has no part in the spread of the others.
    ruled_out = log_p.detach() == -torch.inf
    others = log_p.detach().masked_fill(ruled_out, 0)
    count = (~ruled_out).sum(1, keepdim=True)
    mean = others.sum(1, keepdim=True) / count
    # As many deviations of zero as there are classes ruled out; the others alone spread by more.
    spread = torch.where(ruled_out, mean, log_p.detach()).std(1, keepdim=True)
    spread = spread * ((log_p.shape[1] - 1) / (count - 1).clamp_min(1)).sqrt()
    return F.log_softmax(log_p / (softening * spread).clamp_min(1), dim=1)


def _of_rows(values: Tensor, rows: Tensor) -> Tensor:
    """The entries of some examples; a goal may stand on another device than the search."""
    return values.to(rows.device).expand(1)[rows * 0] if values.ndim == 0 else values.to(rows.device)[rows]


def _checked_label(label: Any) -> int | Tensor:
    if isinstance(label, Tensor):
        if label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
            raise TypeError(f"a class must be an int or an integer tensor (N,), received {label.dtype}")
        return label.to(torch.int64)
    try:
        if is_truth(label):
            raise TypeError
        index = operator.index(label)
    except TypeError:
        raise TypeError(f"a class must be an int or an integer tensor, received {type(label).__name__}") from None
    if not -(2**31) <= index < 2**31:
        raise ValueError(f"class {index} is out of range for any output")
    return index


def check_confidence(confidence: Any) -> None:
    r"""Raises a TypeError or ValueError for what is no number in (0, 1)."""
    _check_number("confidence", confidence)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, received {confidence}")


def _check_number(noun: str, number: Any, accepted: str = "a number") -> None:
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(f"{noun} must be {accepted}, received {type(number).__name__}")


def _check_one_each(noun: str, value: float | Tensor, examples: int) -> None:
    if isinstance(value, Tensor) and value.ndim and value.shape != (examples,):
        received = f"received {tuple(value.shape)} for {examples} examples"
        raise ValueError(f"there must be one {noun} for all or one per example: {received}")
