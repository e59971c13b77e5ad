r"""PerturbationCounterfactual: any ``captum.robust.Perturbation`` as a method, with a result and a status."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
from captum.robust import Perturbation
from torch import Tensor

from captum_dcf.attr._captum import TargetType
from captum_dcf.attr._outcome import begin_in_pixels, clamp, judge, keep_better, refuse, searching_rows
from captum_dcf.attr.counterfactual import CounterfactualAttribution, Query
from captum_dcf.attr.kept import random_state_kept
from captum_dcf.generators.base import Generator
from captum_dcf.search.goal import Goal, LeaveClass, OutputKind, ReachClass
from captum_dcf.search.result import Counterfactual, Status
from captum_dcf.search.rows import finite_rows

__all__ = ["PerturbationCounterfactual"]


class PerturbationCounterfactual(CounterfactualAttribution):
    r"""Runs a perturbation of Captum, such as ``PGD`` or ``FGSM``, and judges what it gives by the goal.

    The perturbation is given ``target`` and ``targeted``, where its ``perturb`` knows them: the class to reach, or for
    the goal ``LeaveClass`` the class to leave. One run of it is one step of the result, however many it takes inside.
    x' is clamped to the range of pixels; where it is further from the goal than x, x is returned.

    The loss of Captum's ``PGD`` and ``FGSM`` is -log of the output by default, which is NaN for negative logits and
    then changes nothing: pass one. It should give one value per example (``reduction="none"``), or what an example gets
    will depend on the size of the batch; so it does with a random start, whose random state is put back afterwards.

    Args:
        forward_func: The model: images (N, ...) to outputs. Additional arguments are refused: the perturbation has a
            forward function of its own, which would not be given them.
        generator: Says the range of pixels, and gives the reconstructions and latents of the result.
        perturbation: The perturbation, made with the same model.
        arguments: Further arguments of its ``perturb``, by name.
        output: What the model gives: ``"logits"``, ``"probabilities"`` or ``"binary_logit"``.

    Examples:
        >>> from captum.robust import PGD
        >>> from captum_dcf import Pixels
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
        >>> def loss(output, target):
        ...     return torch.nn.functional.cross_entropy(output, target, reduction="none")
        >>> attack = PGD(model, loss, lower_bound=0.0, upper_bound=1.0)
        >>> settings = {"radius": 0.3, "step_size": 0.05, "step_num": 10}
        >>> method = PerturbationCounterfactual(model, Pixels((1, 4, 4)), attack, settings)
        >>> method.counterfactual(torch.rand(2, 1, 4, 4), target=1, confidence=0.4).counterfactuals.shape
        torch.Size([2, 1, 4, 4])
    """

    default_max_steps = 1

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        generator: Generator,
        perturbation: Perturbation,
        arguments: dict[str, Any] | None = None,
        output: OutputKind = "logits",
    ) -> None:
        super().__init__(forward_func, generator, output)
        if not isinstance(perturbation, Perturbation):
            name = type(perturbation).__name__
            raise TypeError(f"perturbation must be a captum.robust.Perturbation, received {name}")
        self.perturbation = perturbation
        self.arguments = dict(arguments or {})

    def search(self, query: Query) -> Counterfactual:
        r"""One run of the perturbation, for all examples at once."""
        reason = "only the end of the perturbation is known"
        refuse(self, query, reason, reason)
        _check_goal(query.goal)
        result = begin_in_pixels(self, query)
        rows = searching_rows(result)
        if len(rows):
            images = self._run(query.inputs[rows], query.goal.take(rows))
            self._keep(query, result, rows, images)
            query.on_round(len(rows))
        return result

    def _run(self, inputs: Tensor, goal: Goal) -> Tensor:
        known = inspect.signature(self.perturbation.perturb).parameters
        arguments = {
            **self._arguments_of(cast(ReachClass | LeaveClass, goal), len(inputs), inputs.device),
            **self.arguments,
        }
        arguments = {name: value for name, value in arguments.items() if name in known or name in self.arguments}
        with random_state_kept(inputs.device):
            images = self.perturbation.perturb(inputs.clone(), **arguments)
        if not isinstance(images, Tensor) or images.shape != inputs.shape:
            received = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise ValueError(f"the perturbation must give images of shape {tuple(inputs.shape)}, received {received}")
        return images.detach()

    def _arguments_of(self, goal: ReachClass | LeaveClass, examples: int, device: torch.device) -> dict[str, Any]:
        labels = torch.as_tensor(goal.label, dtype=torch.int64, device=device).expand(examples)
        return {"target": labels, "targeted": isinstance(goal, ReachClass)}

    @torch.no_grad()
    def _keep(self, query: Query, result: Counterfactual, rows: Tensor, images: Tensor) -> None:
        finite = finite_rows(images)
        images = clamp(images, self.generator.data_range)
        scores, reached, finite = judge(query, images, rows, finite)
        keep_better(result, rows, reached | (finite & (scores > result.end_scores[rows])), images, scores)
        result.end_latents.copy_(self.encode(result.counterfactuals))
        result.steps[rows] = 1
        result.status[rows[reached]] = Status.FOUND
        result.status[rows[~finite]] = Status.NOT_FINITE

    def _resolve(
        self, inputs: Tensor, target: TargetType, additional: Any, confidence: float, goal: Goal | None
    ) -> tuple[Goal, Callable[[Tensor, Tensor], Tensor]]:
        if additional is not None:
            raise ValueError(
                "PerturbationCounterfactual accepts additional_forward_args=None only: the perturbation calls its own "
                "forward function without them; give that function the arguments, for instance by functools.partial"
            )
        return super()._resolve(inputs, target, additional, confidence, goal)


def _check_goal(goal: Goal) -> None:
    if not isinstance(goal, (ReachClass, LeaveClass)):
        name = type(goal).__name__
        raise ValueError(f"PerturbationCounterfactual accepts target=, ReachClass and LeaveClass, received {name}")
