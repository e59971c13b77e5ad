r"""PerturbationCounterfactual: any ``captum.robust.Perturbation`` as a method, with a result and a status."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from captum.robust import Perturbation
from torch import Tensor

from captum_dcf.attr._captum import TargetType
from captum_dcf.attr.counterfactual import ModelOptions
from captum_dcf.attr.spaces import PixelMethod
from captum_dcf.context import preserve_random_state
from captum_dcf.search import Coordinates, Goal, LeaveClass, Options, Problem, ReachClass, Searcher
from captum_dcf.search.external import External

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["PerturbationCounterfactual"]


class PerturbationCounterfactual(PixelMethod):
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
        perturbation: The perturbation, made with the same model.
        arguments: Further arguments of its ``perturb``, by name.
        data_range: Least and greatest pixel value, None for no bounds.
        model_options: ``output``, ``select``, ``normalize``: see :class:`CounterfactualAttribution`.

    Examples:
        >>> import torch
        >>> from captum.robust import PGD
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
        >>> def loss(output, target):
        ...     return torch.nn.functional.cross_entropy(output, target, reduction="none")
        >>> attack = PGD(model, loss, lower_bound=0.0, upper_bound=1.0)
        >>> settings = {"radius": 0.3, "step_size": 0.05, "step_num": 10}
        >>> method = PerturbationCounterfactual(model, attack, settings)
        >>> method.counterfactual(torch.rand(2, 1, 4, 4), target=1, confidence=0.4).counterfactuals.shape
        torch.Size([2, 1, 4, 4])
    """

    default_max_steps = 1

    def __init__(
        self,
        forward_func: Callable[..., Any],
        perturbation: Perturbation,
        arguments: Mapping[str, Any] | None = None,
        data_range: tuple[float, float] | None = (0.0, 1.0),
        **model_options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(forward_func, data_range, **model_options)
        if not isinstance(perturbation, Perturbation):
            name = type(perturbation).__name__
            raise TypeError(f"perturbation must be a captum.robust.Perturbation, received {name}")
        if arguments is not None and not (
            isinstance(arguments, Mapping) and all(isinstance(name, str) for name in arguments)
        ):
            raise TypeError(f"arguments must be a mapping of names to values, received {arguments!r}")
        self.perturbation = perturbation
        self.arguments = dict(arguments or {})

    def check_options(self, options: Options) -> None:
        super().check_options(options)
        if options.refine:
            raise ValueError(
                "PerturbationCounterfactual accepts refine=False only: a perturbation keeps within a radius, not near x"
            )

    def check_goal(self, goal: Goal) -> Goal:
        if not isinstance(goal, (ReachClass, LeaveClass)):
            name = type(goal).__name__
            raise ValueError(f"PerturbationCounterfactual accepts target=, ReachClass and LeaveClass, received {name}")
        return goal

    def searcher(self, problem: Problem, max_steps: int) -> Searcher:
        return External(partial(self._run, cast(ReachClass | LeaveClass, problem.goal)))

    def _run(self, goal: ReachClass | LeaveClass, inputs: Tensor, rows: Tensor) -> Tensor:
        known = inspect.signature(self.perturbation.perturb).parameters
        arguments = {"target": goal.labels(rows), "targeted": isinstance(goal, ReachClass), **self.arguments}
        arguments = {name: value for name, value in arguments.items() if name in known or name in self.arguments}
        with preserve_random_state(inputs.device):
            images = self.perturbation.perturb(inputs, **arguments)
        if not isinstance(images, Tensor) or images.shape != inputs.shape:
            received = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise ValueError(f"the perturbation must give images of shape {tuple(inputs.shape)}, received {received}")
        return images

    def _problem(
        self, inputs: Tensor, coordinates: Coordinates, target: TargetType, additional: Any, options: Options
    ) -> Problem:
        if additional is not None:
            raise ValueError(
                "PerturbationCounterfactual accepts additional_forward_args=None only: the perturbation calls its own "
                "forward function without them; give that function the arguments, for instance by functools.partial"
            )
        return super()._problem(inputs, coordinates, target, additional, options)
