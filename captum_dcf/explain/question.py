r"""What is asked of a model: a class to reach or to leave, or a value; and the words for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from captum_dcf.search import AtLeast, AtMost, Goal, LeaveClass, Near, ReachClass
from captum_dcf.search.model import OutputKind
from captum_dcf.search.options import DEFAULT_CONFIDENCE

__all__ = ["Question", "output_kind"]

# How far rows of probabilities may be from a sum of 1; those of half precision are so by 1e-3.
SUM = 2e-3


@dataclass(frozen=True, eq=False)
class Question:
    r"""What an image has to become for the model: exactly one of ``target``, ``leave`` and ``value``.

    Attributes:
        target: The class to reach, by number or name (kept as its number); with ``value`` the number of the output
            that it speaks of.
        leave: Any class but the one that the model sees.
        value: A value to reach: ``AtLeast``, ``AtMost`` or ``Near``.
        confidence: Λ, the probability above which a class counts as reached or left; 0.99 by default.
        names: Of the classes, in their order; empty where none are known.
        unit: Of values, such as "nuclei".

    Raises:
        ValueError: Nothing is asked for, or several things; a name is none of the classes; two classes have one name.
    """

    target: int | str | None = None
    leave: bool = False
    value: Goal | None = None
    confidence: float | None = None
    names: Sequence[str] = ()
    unit: str = "output"

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        if len(set(self.names)) < len(self.names) or not all(self.names):
            raise ValueError(f"each class must have a name of its own, received {list(self.names)}")
        if [self.leave, self.value is not None, self.target is not None and self.value is None].count(True) != 1:
            raise ValueError("say one thing to reach: a class (target), any other class (leave), or a value")
        if self.value is not None and self.confidence is not None:
            raise ValueError(f"confidence belongs to classes, and a value is asked for: received {self.confidence}")
        if isinstance(self.target, str):
            object.__setattr__(self, "target", self._index(self.target))

    @property
    def of_classes(self) -> bool:
        r"""Whether it is about classes, not about a value."""
        return self.value is None

    @property
    def score(self) -> str:
        r"""What is compared before and after: a probability, such as "P(blond)", or the unit of a value."""
        if self.leave:
            return "P(another class)"
        return f"P({self.name(self._label)})" if self.of_classes else self.unit

    @property
    def suffix(self) -> str:
        r"""What the name of a file of x' ends in, such as "to-9"."""
        if self.leave:
            return "to-another"
        if self.of_classes:
            return f"to-{_slug(self.name(self._label))}"
        kinds: dict[type, str] = {AtLeast: "at-least", AtMost: "at-most", Near: "near"}
        kind = kinds.get(type(self.value), "goal")
        value = getattr(self.value, "value", None)
        return f"to-{kind}-{value:g}" if isinstance(value, float) else f"to-{kind}"

    def name(self, label: int) -> str:
        r"""The name of a class, its number where there is none."""
        return self.names[label] if 0 <= label < len(self.names) else str(label)

    def check(self, output: Tensor) -> None:
        r"""Refuses an output that has not as many classes as there are names.

        Raises:
            ValueError: It has more or fewer.
        """
        if self.of_classes and self.names and output.ndim == 2 and len(self.names) != output.shape[1]:
            raise ValueError(f"the model has {output.shape[1]} classes, received the names of {len(self.names)}")

    def goal(self, output: Tensor) -> Goal:
        r"""The goal of a search; ``output`` is that of the inputs, logits (N, C) or values."""
        confidence = DEFAULT_CONFIDENCE if self.confidence is None else self.confidence
        if self.leave:
            return LeaveClass(output.argmax(1), confidence)
        return ReachClass(self._label, confidence) if self.value is None else self.value

    def asked(self, output: Tensor) -> dict[str, Any]:
        r"""The same, by keyword, as ``counterfactual`` takes it."""
        if self.of_classes and not self.leave:
            return {"target": self._label, "confidence": self.confidence}
        return {"target": self.target, "goal": self.goal(output)}

    def numbers(self, goal: Goal, output: Tensor, rows: Tensor) -> list[float]:
        r"""What :attr:`score` says, of outputs (n, ...) of the examples ``rows``: probabilities, or values."""
        if self.of_classes:
            found: list[float] = goal.judge(output, rows).score.tolist()
            return found
        return [float(value) for value in self.meant(output).flatten()]

    def meant(self, output: Tensor) -> Tensor:
        r"""The part of an output (n, ...) that the question is about: of several values that of the target.

        Raises:
            ValueError: There is no such value.
        """
        if self.of_classes or self.target is None or output.ndim < 2:
            return output
        if not -output.shape[1] <= self._label < output.shape[1]:
            raise ValueError(
                f"value {self._label} is out of range: the output has the values 0 to {output.shape[1] - 1}"
            )
        return output[:, self._label]

    def seen(self, output: Tensor) -> list[str]:
        r"""What the model sees, in words: the likeliest class with its probability; of values nothing."""
        if not self.of_classes:
            return [""] * len(output)
        probabilities, labels = output.softmax(1).max(1)
        return [f"{self.name(label)} ({p:.3f})" for p, label in zip(probabilities.tolist(), labels.tolist())]

    @property
    def _label(self) -> int:
        return int(self.target or 0)

    def _index(self, target: str) -> int:
        if target in self.names:
            return list(self.names).index(target)
        if re.fullmatch(r"\s*[+-]?\d+\s*", target):
            return int(target)
        known = f"the classes are {list(self.names)}" if self.names else "its classes have no names: say a number"
        raise ValueError(f"no class {target!r}: {known}")


def output_kind(output: Tensor) -> OutputKind:
    r"""What an output of classes must be, by its shape and values.

    One column is a logit, positive for class 1; rows that are nowhere negative and sum to 1 are probabilities, which
    logits of several images by chance are not; all else are logits.
    """
    if output.ndim == 1 or output.shape[1:] == (1,):
        return "binary_logit"
    are_shares = bool((output >= 0).all()) and bool(((output.sum(1) - 1).abs() <= SUM).all())
    return "probabilities" if output.ndim == 2 and are_shares else "logits"


def _slug(name: str) -> str:
    """A name as part of the name of a file."""
    return re.sub(r"[^\w.+]+", "-", name).strip("-.") or "class"
