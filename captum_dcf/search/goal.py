r"""Goals: what the output of the classifier or regressor has to become, and how far it is from there.

A goal speaks of a whole batch: its values are one number for all examples or a tensor (N,) with one for each, and
``take`` picks those of the examples that are still searching. Losses fall towards the goal, scores rise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["AtLeast", "AtMost", "Goal", "LeaveClass", "Near", "OutputKind", "ReachClass"]

OutputKind = Literal["logits", "probabilities", "binary_logit"]
OUTPUT_KINDS = ("logits", "probabilities", "binary_logit")


class Goal(ABC):
    r"""When a search has arrived. A goal of your own is three methods, and ``take`` if it holds tensors."""

    @abstractmethod
    def loss(self, output: Tensor) -> Tensor:
        r"""What the search lowers, (N,), differentiable in ``output``."""

    @abstractmethod
    def score(self, output: Tensor) -> Tensor:
        r"""How near the goal is, (N,), higher is nearer: a probability for classes, minus a distance for values."""

    @abstractmethod
    def reached(self, output: Tensor) -> Tensor:
        r"""Whether each example has arrived, bool (N,)."""

    def agrees(self, output: Tensor, other: Tensor) -> Tensor:
        r"""Whether two outputs mean the same to this goal, bool (N,): whether a reconstruction kept the answer."""
        return self.reached(output) == self.reached(other)

    def take(self, index: Tensor) -> Goal:
        r"""The goal of the examples at ``index`` only."""
        return self

    def check(self, output: Tensor) -> None:  # noqa: B027
        r"""Raises a ValueError if this goal cannot be asked of such an output."""

    def check_length(self, examples: int) -> None:  # noqa: B027
        r"""Raises a ValueError if this goal speaks of another number of examples; asked before the first ``take``."""


@dataclass(frozen=True)
class _ClassGoal(Goal):
    label: int | Tensor
    confidence: float
    output: OutputKind | None
    softening: float | None

    def __post_init__(self) -> None:
        if self.output is not None and self.output not in OUTPUT_KINDS:
            raise ValueError(f"output must be one of {OUTPUT_KINDS}, received {self.output!r}")
        if isinstance(self.label, bool) or not isinstance(self.label, (int, Tensor)):
            raise TypeError(f"a class must be an int or an integer tensor (N,), received {type(self.label).__name__}")
        if isinstance(self.label, Tensor) and (self.label.is_floating_point() or self.label.dtype == torch.bool):
            raise TypeError(f"a class must be an int or an integer tensor (N,), received {self.label.dtype}")
        _check_number("confidence", self.confidence)
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, received {self.confidence}")
        if self.softening is not None:
            _check_number("softening", self.softening)
            if not 0 <= self.softening < float("inf"):
                raise ValueError(f"softening must be 0 or more and finite, received {self.softening}")

    @property
    def kind(self) -> OutputKind:
        r"""What the output is taken for."""
        return self.output or "logits"

    def completed(self, output: OutputKind, softening: float) -> _ClassGoal:
        r"""The goal with these settings where it has none of its own."""
        own_output = output if self.output is None else self.output
        own_softening = softening if self.softening is None else self.softening
        return replace(self, output=own_output, softening=own_softening)

    def take(self, index: Tensor) -> Goal:
        return replace(self, label=_taken(self.label, index))

    def check_length(self, examples: int) -> None:
        _check_one_each("class", self.label, examples)

    def agrees(self, output: Tensor, other: Tensor) -> Tensor:
        return self._log_probabilities(output).argmax(1) == self._log_probabilities(other).argmax(1)

    def check(self, output: Tensor) -> None:
        if self.kind == "binary_logit":
            if output.ndim > 2 or (output.ndim == 2 and output.shape[1] != 1):
                raise ValueError(f"a binary logit must have the shape (N,) or (N, 1), received {tuple(output.shape)}")
            classes = 2
        elif output.ndim != 2 or output.shape[1] < 2:
            raise ValueError(
                f"{self.kind} must have the shape (N, classes) with two classes or more, received "
                f"{tuple(output.shape)}; for one logit say output='binary_logit', for a value use AtLeast or its like"
            )
        else:
            classes = output.shape[1]
        self.check_length(len(output))
        labels = torch.as_tensor(self.label)
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            wrong = low if low < 0 else high
            raise ValueError(f"class {wrong} is out of range: the output has the classes 0 to {classes - 1}")
        if self.kind == "probabilities":
            _check_probabilities(output)

    def _labels(self, output: Tensor) -> Tensor:
        labels = torch.as_tensor(self.label, dtype=torch.int64, device=output.device)
        # The backward pass keeps them, which it may not where they were made in inference mode.
        labels = labels.clone() if labels.is_inference() else labels
        return labels.expand(len(output)).unsqueeze(1)

    def _log_probabilities(self, output: Tensor) -> Tensor:
        if self.kind == "logits":
            return F.log_softmax(output, dim=1)
        if self.kind == "probabilities":
            return output.clamp_min(torch.finfo(output.dtype).tiny).log()
        logit = output.flatten()
        return torch.stack((F.logsigmoid(-logit), F.logsigmoid(logit)), dim=1)

    def _softened(self, output: Tensor) -> Tensor:
        """Log-probabilities at a temperature of ``softening`` standard deviations of the logits, never below one."""
        log_probabilities = self._log_probabilities(output)
        if not self.softening:
            return log_probabilities
        spread = log_probabilities.detach().std(1, keepdim=True)
        return F.log_softmax(log_probabilities / (self.softening * spread).clamp_min(1), dim=1)

    def _of_label(self, log_probabilities: Tensor) -> Tensor:
        return log_probabilities.gather(1, self._labels(log_probabilities)).squeeze(1)


@dataclass(frozen=True)
class ReachClass(_ClassGoal):
    r"""The class ``label`` with more than ``confidence``: the set S_{t,Λ} of the paper. The loss is the cross-entropy.

    A confident classifier names one rival class at a time, and the gradient of its cross-entropy turns with each change
    of rival. ``softening`` divides the logits by so many of their own standard deviations (if that is more than one)
    before the cross-entropy is taken, so that all classes have a say in the direction. What counts as reached is not
    touched by it.

    Args:
        label: The class to reach, one for all or a tensor (N,).
        confidence: Λ, the probability above which the class counts as reached, in (0, 1).
        output: What the model gives: ``"logits"`` (N, classes), ``"probabilities"`` (N, classes), or ``"binary_logit"``
            (N,) or (N, 1), positive for class 1. None leaves it to the method; without one it is logits.
        softening: At least 0, which is the plain cross-entropy. None leaves it to the method; without one it is 0.
    """

    label: int | Tensor
    confidence: float = 0.99
    output: OutputKind | None = None
    softening: float | None = None

    def loss(self, output: Tensor) -> Tensor:
        return -self._of_label(self._softened(output))

    def score(self, output: Tensor) -> Tensor:
        return self._of_label(self._log_probabilities(output)).exp()

    def reached(self, output: Tensor) -> Tensor:
        # The target is asked to be the most likely class as well, which matters where confidence is below one half.
        predicted = self._log_probabilities(output).argmax(1) == self._labels(output).squeeze(1)
        return predicted & (self.score(output) > self.confidence)


@dataclass(frozen=True)
class LeaveClass(_ClassGoal):
    r"""Any class but ``label``: the others together have more than ``confidence``, and one of them is the most likely.

    Args:
        label: The class to leave, one for all or a tensor (N,).
        confidence: Probability that the other classes must exceed together, in (0, 1).
        output: As in :class:`ReachClass`.
        softening: As in :class:`ReachClass`.
    """

    label: int | Tensor
    confidence: float = 0.99
    output: OutputKind | None = None
    softening: float | None = None

    def loss(self, output: Tensor) -> Tensor:
        return -self._log_rest(self._softened(output))

    def score(self, output: Tensor) -> Tensor:
        return self._log_rest(self._log_probabilities(output)).exp()

    def reached(self, output: Tensor) -> Tensor:
        predicted = self._log_probabilities(output).argmax(1) == self._labels(output).squeeze(1)
        return ~predicted & (self.score(output) > self.confidence)

    def _log_rest(self, log_probabilities: Tensor) -> Tensor:
        is_label = F.one_hot(self._labels(log_probabilities).squeeze(1), log_probabilities.shape[1]).bool()
        return log_probabilities.masked_fill(is_label, -torch.inf).logsumexp(1)


@dataclass(frozen=True)
class _ValueGoal(Goal):
    value: float | Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.value, Tensor):
            _check_number("a value", self.value, "a number or a tensor (N,)")
        if not torch.as_tensor(self.value).isfinite().all():
            raise ValueError(f"a value must be finite, received {self.value}")

    def take(self, index: Tensor) -> Goal:
        return replace(self, value=_taken(self.value, index))

    def check(self, output: Tensor) -> None:
        if output.numel() != len(output):
            raise ValueError(
                f"a value must have the shape (N,) or (N, 1), received {tuple(output.shape)}; pass target= to pick one"
            )
        self.check_length(len(output))

    def check_length(self, examples: int) -> None:
        _check_one_each("value", self.value, examples)

    def _difference(self, output: Tensor) -> Tensor:
        return output.flatten() - torch.as_tensor(self.value).to(output)


@dataclass(frozen=True)
class AtLeast(_ValueGoal):
    r"""A scalar output of at least ``value`` (one for all, or a tensor (N,)), in the model's own unit."""

    value: float | Tensor

    def loss(self, output: Tensor) -> Tensor:
        return -self._difference(output)

    def score(self, output: Tensor) -> Tensor:
        return self._difference(output)

    def reached(self, output: Tensor) -> Tensor:
        return self._difference(output) >= 0


@dataclass(frozen=True)
class AtMost(_ValueGoal):
    r"""A scalar output of at most ``value`` (one for all, or a tensor (N,)), in the model's own unit."""

    value: float | Tensor

    def loss(self, output: Tensor) -> Tensor:
        return self._difference(output)

    def score(self, output: Tensor) -> Tensor:
        return -self._difference(output)

    def reached(self, output: Tensor) -> Tensor:
        return self._difference(output) <= 0


@dataclass(frozen=True)
class Near(_ValueGoal):
    r"""A scalar output within ``tolerance`` of ``value`` (one for all, or a tensor (N,)), in the model's own unit."""

    value: float | Tensor
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_number("tolerance", self.tolerance)
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be positive, received {self.tolerance}")

    def loss(self, output: Tensor) -> Tensor:
        return self._difference(output).square()

    def score(self, output: Tensor) -> Tensor:
        return -self._difference(output).abs()

    def reached(self, output: Tensor) -> Tensor:
        return self._difference(output).abs() <= self.tolerance


def _check_number(noun: str, number: Any, accepted: str = "a number") -> None:
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(f"{noun} must be {accepted}, received {type(number).__name__}")


def _check_one_each(noun: str, value: float | Tensor, examples: int) -> None:
    if isinstance(value, Tensor) and value.ndim and value.shape != (examples,):
        received = f"received {tuple(value.shape)} for {examples} examples"
        raise ValueError(f"there must be one {noun} for all or one per example: {received}")


def _check_probabilities(output: Tensor) -> None:
    totals = output.detach().sum(1)
    if (output < 0).any() or ((totals - 1).abs() > 1e-2).any():
        raise ValueError(
            "output='probabilities' needs rows that are at least 0 and sum to 1; for logits say output='logits'"
        )


def _taken(of_all: Any, index: Tensor) -> Any:
    """The entries for some examples, where there is one for each; goals may stand on another device than the search."""
    return of_all[index.to(of_all.device)] if isinstance(of_all, Tensor) and of_all.ndim else of_all
