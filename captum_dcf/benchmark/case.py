r"""What a method makes of some examples, as metrics see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from captum_dcf.benchmark.goals import value_of
from captum_dcf.search import Counterfactual, Goal, LeaveClass, Model, ReachClass, Status

__all__ = ["Case", "Explain", "Metric", "NotApplicable", "Outcome", "SaliencyMap"]


class NotApplicable(Exception):
    r"""A metric asked for what a method does not give: its cell stays empty."""


@dataclass(frozen=True)
class SaliencyMap:
    r"""What a method gives that says where a model looks, and has no counterfactual.

    Attributes:
        attributions: Of the inputs' shape.
        explained: The class whose score they explain, one per example, int64 (N,).
    """

    attributions: Tensor
    explained: Tensor


Outcome = Counterfactual | SaliencyMap | Tensor
Explain = Callable[[Tensor, Goal], Outcome]


@dataclass(frozen=True)
class Case:
    r"""What a metric is given: some examples, and what one method made of them.

    Attributes:
        inputs: x, (N, ...).
        labels: The classes or values that the data set gives them, (N,).
        goal_of: From labels to the goal of the method.
        outcome: What the method gave.
        explain: The method itself, for metrics that ask it about other images.
        model: The explained model.
    """

    inputs: Tensor
    labels: Tensor
    goal_of: Callable[[Tensor], Goal]
    outcome: Outcome
    explain: Explain
    model: Callable[..., Any]

    @property
    def counterfactuals(self) -> Tensor:
        r"""x'.

        Raises:
            NotApplicable: The method gives none.
        """
        if isinstance(self.outcome, SaliencyMap):
            raise NotApplicable("a saliency method has no counterfactuals")
        return self.outcome.counterfactuals if isinstance(self.outcome, Counterfactual) else self.outcome

    @property
    def reconstructions(self) -> Tensor:
        r"""What the generator makes of x.

        Raises:
            NotApplicable: The method does not say.
        """
        if not isinstance(self.outcome, Counterfactual):
            raise NotApplicable("only a Counterfactual has reconstructions")
        return self.outcome.reconstructions

    @property
    def attributions(self) -> Tensor:
        r"""x' - x, or what the saliency method gave."""
        return _attributions(self.inputs, self.outcome)

    @property
    def start_latents(self) -> Tensor:
        r"""Where a search in latents began, (N, D).

        Raises:
            NotApplicable: The method searches in pixels, or not at all.
        """
        return self._latents("start_latents")

    @property
    def end_latents(self) -> Tensor:
        r"""The latents that were decoded to x', (N, D); raises as :attr:`start_latents` does."""
        return self._latents("end_latents")

    def _latents(self, name: str) -> Tensor:
        latents: Tensor | None = getattr(self.outcome, name, None)
        if latents is None:
            raise NotApplicable("only a search in latents has some")
        return latents

    @property
    def goal(self) -> Goal:
        r"""What was to be reached."""
        return self.goal_of(self.labels)

    @property
    def target(self) -> Tensor:
        r"""The class that was to be reached, int64 (N,).

        Raises:
            NotApplicable: The goal is no class to reach.
        """
        goal = self.goal
        if not isinstance(goal, ReachClass):
            raise NotApplicable(f"{type(goal).__name__} names no class to reach")
        return torch.as_tensor(goal.label, device=self.inputs.device).expand(len(self.inputs))

    @property
    def source(self) -> Tensor:
        r"""The class that the model gives x, int64 (N,).

        Raises:
            NotApplicable: The goal is a value.
        """
        if not isinstance(self.goal, (ReachClass, LeaveClass)):
            raise NotApplicable(f"a model that is to give a value ({type(self.goal).__name__}) has no classes")
        with torch.no_grad():
            output: Tensor = self.model(self.inputs.clone())
        return output.argmax(1) if output.ndim == 2 and output.shape[1] > 1 else (output.flatten() > 0).long()

    @property
    def explained(self) -> Tensor:
        r"""The classes whose scores the attributions speak of: those to be reached, for x' - x."""
        return self.outcome.explained if isinstance(self.outcome, SaliencyMap) else self.target

    def reached(self) -> Tensor:
        r"""Whether x' reaches the goal, bool (N,): the result says so, or else the model is asked."""
        if isinstance(self.outcome, Counterfactual):
            return self.outcome.reached
        return self._judged(self.counterfactuals.detach())

    def already_there(self) -> Tensor:
        r"""Whether x itself reaches the goal, bool (N,), so that there is nothing to find."""
        if isinstance(self.outcome, Counterfactual):
            return self.outcome.status == Status.ALREADY_THERE
        return self._judged(self.inputs)

    def _judged(self, images: Tensor) -> Tensor:
        goal, count = self.goal, len(images)
        model = Model(self.model, count, kind="logits" if goal.of_classes else None)
        rows = torch.arange(count, device=images.device)
        with torch.no_grad():
            return goal.judge(model(images, rows), rows).reached

    def attribute(self, inputs: Tensor, rows: Tensor) -> Tensor:
        r"""The method's attributions for other images, given the row of the example that each was made from."""
        return _attributions(inputs, self.explain(inputs, self.goal_of(self.labels[rows])))

    def copy(self) -> Case:
        r"""The same with tensors of its own, so that whoever writes into them changes nothing of the others'."""
        outcome = self.outcome.detach().clone() if isinstance(self.outcome, Tensor) else _with_own_tensors(self.outcome)
        copied: Case = replace(_with_own_tensors(self), outcome=outcome)
        return copied

    def targets(self) -> list[Any]:
        r"""For the table: the class or the value to be reached, None where the goal names neither."""
        value = value_of(self.goal)
        count = len(self.inputs)
        return [None] * count if value is None else value.expand(count).tolist()


# Whatever takes a case and gives one value per example, (N,); or one of the whole set if its ``of`` is "set".
Metric = Callable[[Case], Any]


def _attributions(inputs: Tensor, outcome: Outcome) -> Tensor:
    return outcome - inputs if isinstance(outcome, Tensor) else outcome.attributions


def _with_own_tensors(record: Any) -> Any:
    """A copy of a dataclass with its tensors copied and detached."""
    tensors = {part.name: getattr(record, part.name) for part in fields(record)}
    return replace(record, **{name: one.detach().clone() for name, one in tensors.items() if isinstance(one, Tensor)})
