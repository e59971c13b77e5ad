r"""CounterfactualAttribution: what all counterfactual methods share, in Captum's manner."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import GradientAttribution
from captum.log import log_usage
from captum.robust import Perturbation
from torch import Tensor

from captum_dcf.attr._captum import TargetType
from captum_dcf.attr._checks import check_inputs, check_modules, frozen_parameters, modules_of, single_tensor
from captum_dcf.attr._target import parse_target, select_classes, select_outputs
from captum_dcf.generators.base import Generator
from captum_dcf.search.goal import OUTPUT_KINDS, Goal, OutputKind, ReachClass
from captum_dcf.search.result import Counterfactual, Status

__all__ = ["CounterfactualAttribution", "CounterfactualWarning", "Query"]

REASONS = {
    Status.BEST_EFFORT: "the step limit came first",
    Status.STALLED: "the gradient vanished",
    Status.NOT_FINITE: "decodes or gradients were not finite",
    Status.NOT_RECONSTRUCTED: "the generator cannot represent the input",
}


class CounterfactualWarning(UserWarning):
    r"""Some examples of a call have no counterfactual; ``counterfactual(...)`` tells which, by status."""


@dataclass(frozen=True)
class Query:
    r"""One batch to be searched, with everything resolved.

    Attributes:
        inputs: x, (n, ...), detached.
        predict: Images and the rows of this batch they belong to, to model outputs as the goal expects them.
        goal: The goal of this batch.
        max_steps: Most steps of one example.
        refine: Whether to shorten the last step.
        keep_path: Whether to keep the images on the way.
        on_round: To be called after each round with the number of examples that were searching.
    """

    inputs: Tensor
    predict: Callable[[Tensor, Tensor], Tensor]
    goal: Goal
    max_steps: int
    refine: bool
    keep_path: bool
    on_round: Callable[[int], None]


class CounterfactualAttribution(GradientAttribution, Perturbation):
    r"""Base of all methods that answer "what would have to change?" with another image.

    A method writes :meth:`search`; the three ways to ask it are here. ``attribute`` returns x' - x and is what Captum's
    tools call, ``perturb`` returns x' (Captum's ``Perturbation``), ``counterfactual`` returns everything there is to
    know. All three take the same arguments.

    Nothing of the caller's is changed: inputs, parameters and their ``.grad``, training flags, hooks, random state.

    Args:
        forward_func: The model: images (N, ...), and additional arguments, to outputs.
        generator: Coordinates of the data.
        output: What the model gives: ``"logits"`` or ``"probabilities"`` of shape (N, classes), or ``"binary_logit"``
            of shape (N,) or (N, 1), positive for class 1. Of no concern to goals that speak of values.
    """

    def __init__(
        self, forward_func: Callable[..., Tensor], generator: Generator, output: OutputKind = "logits"
    ) -> None:
        super().__init__(forward_func)
        if not isinstance(generator, Generator):
            raise TypeError(f"generator must be a captum_dcf Generator, received {type(generator).__name__}")
        if output not in OUTPUT_KINDS:
            raise ValueError(f"output must be one of {OUTPUT_KINDS}, received {output!r}")
        self.generator = generator
        self.output: OutputKind = output

    @abstractmethod
    def search(self, query: Query) -> Counterfactual:
        r"""The method itself: counterfactuals of one batch."""

    @log_usage(part_of_slo=False)
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        confidence: float = 0.99,
        goal: Goal | None = None,
        max_steps: int = 500,
        refine: bool = False,
        internal_batch_size: int | None = None,
        show_progress: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""x' - x: what has to change in each input for the model to give the target's class.

        ``target`` names the class to *reach*, not the output to explain, as in
        ``captum.robust.PGD.perturb(..., targeted=True)``.

        Args:
            inputs: x, floating point (N, ...), or a tuple of one such tensor.
            target: The class to reach: an int, a tensor of one integer, a list or 1-D tensor with one integer per
                example; for outputs with more dimensions (N, classes, ...) a tuple of ints, class first, or a list of
                one tuple per example. With ``goal`` it has Captum's meaning instead: the output the goal speaks of.
            additional_forward_args: Further arguments of ``forward_func``, one or a tuple. Tensors whose first dimension
                is N belong to the examples one by one; anything else is passed as it is.
            confidence: Λ, the probability of the target from which on it counts as reached, in (0, 1).
            goal: Another goal than a class: ``LeaveClass``, ``AtLeast``, ``AtMost``, ``Near`` or one of your own.
            max_steps: Most steps of one example.
            refine: Shorten the last step by bisection, down to the threshold of the goal.
            internal_batch_size: Search so many examples at a time, to bound memory. Results do not depend on it.
            show_progress: Show a progress bar, counting the examples that have ended.

        Returns:
            x' - x, of the inputs' shape, dtype and device, in a tuple if they came in one. If some examples were not
            reached, their best attempt, and one :class:`CounterfactualWarning`.

        Raises:
            TypeError: An argument of a kind that is not accepted.
            ValueError: An argument of a shape or value that is not accepted, a model without gradient or in training
                mode with batch statistics, a generator whose images have another shape than the inputs.
        """
        result = self.counterfactual(
            inputs, target, additional_forward_args, confidence, goal, max_steps, refine, internal_batch_size, show_progress
        )
        _warn_of_failures(result)
        return (result.attributions,) if isinstance(inputs, tuple) else result.attributions

    def perturb(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        confidence: float = 0.99,
        goal: Goal | None = None,
        max_steps: int = 500,
        refine: bool = False,
        internal_batch_size: int | None = None,
        show_progress: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""x', the counterfactuals themselves. Arguments, warning and errors as in :meth:`attribute`."""
        result = self.counterfactual(
            inputs, target, additional_forward_args, confidence, goal, max_steps, refine, internal_batch_size, show_progress
        )
        _warn_of_failures(result)
        return (result.counterfactuals,) if isinstance(inputs, tuple) else result.counterfactuals

    def counterfactual(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        confidence: float = 0.99,
        goal: Goal | None = None,
        max_steps: int = 500,
        refine: bool = False,
        internal_batch_size: int | None = None,
        show_progress: bool = False,
        keep_path: bool = False,
    ) -> Counterfactual:
        r"""Everything there is to know: images, latents, scores and how the search of each example ended.

        Arguments and errors as in :meth:`attribute`; nothing is warned of, the status says it.

        Args:
            keep_path: Keep the images of all steps.
        """
        tensor, _ = single_tensor(inputs)
        check_inputs(tensor)
        _check_count("max_steps", max_steps)
        if internal_batch_size is not None:
            _check_count("internal_batch_size", internal_batch_size)
        modules = [*modules_of(self.forward_func), self.generator]
        check_modules(modules)
        # A leaf of our own, also where the caller is in inference mode: the search differentiates through it.
        with torch.inference_mode(False), torch.enable_grad(), frozen_parameters(modules), self.generator.frozen():
            own = tensor.detach().clone()
            goal, predict = self._resolve(own, target, additional_forward_args, confidence, goal)
            size = internal_batch_size or len(own)
            parts = []
            with _progress_bar(show_progress, self.get_name(), len(own)) as bar:
                for start in range(0, len(own), size):
                    rows = torch.arange(start, min(start + size, len(own)), device=own.device)
                    predict_part = _of_rows(predict, rows)
                    on_round = bar(len(rows))
                    query = Query(own[rows], predict_part, goal.take(rows), max_steps, refine, keep_path, on_round)
                    parts.append(self.search(query))
                    on_round(0)
        return Counterfactual.concatenate(parts)

    def encode(self, inputs: Tensor) -> Tensor:
        r"""The latents of inputs, checked: (N, D), and decoded to the inputs' shape.

        Raises:
            ValueError: The generator cannot encode such inputs, or its latents are not (N, D).
        """
        name = type(self.generator).__name__
        try:
            with torch.no_grad():
                latents = self.generator.encode(inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            accepted = next((f", its parameters are {p.dtype} on {p.device}" for p in self.generator.parameters()), "")
            raise ValueError(
                f"{name} cannot encode inputs of shape {tuple(inputs.shape)}, {inputs.dtype} on {inputs.device}{accepted}: {error}"
            ) from error
        if latents.ndim != 2 or len(latents) != len(inputs):
            raise ValueError(f"{name}.encode must give ({len(inputs)}, D), received {tuple(latents.shape)}")
        return latents.detach()

    def decode(self, latents: Tensor, image_shape: torch.Size) -> Tensor:
        r"""The images of latents, checked to have the shape of the inputs' images.

        Raises:
            ValueError: The generator's images have another shape.
        """
        images = self.generator.decode(latents)
        if images.shape != (len(latents), *image_shape):
            raise ValueError(
                f"{type(self.generator).__name__}.decode gives images of shape {tuple(images.shape[1:])}, "
                f"the inputs have {tuple(image_shape)}"
            )
        return images

    def _resolve(
        self, inputs: Tensor, target: TargetType, additional: Any, confidence: float, goal: Goal | None
    ) -> tuple[Goal, Callable[[Tensor, Tensor], Tensor]]:
        """The goal, and the model as a function of images and the rows of the whole batch they belong to."""
        if target is None and goal is None:
            raise ValueError("say what to reach: target=, the class, or goal=, for instance AtLeast(0.8)")
        if goal is not None and not isinstance(goal, Goal):
            raise TypeError(f"goal must be a captum_dcf Goal, received {type(goal).__name__}")
        arguments = additional if isinstance(additional, tuple) else () if additional is None else (additional,)
        indices = None if target is None else parse_target(target, len(inputs), inputs.device)
        select = select_classes if goal is None else select_outputs

        def predict(images: Tensor, rows: Tensor) -> Tensor:
            output = self.forward_func(images, *(_rows_of(argument, rows, len(inputs)) for argument in arguments))
            _check_output(output, images)
            output = output if output.dtype in (torch.float32, torch.float64) else output.float()
            return output if indices is None else select(output, indices[rows])

        return goal or ReachClass(indices[:, 0], confidence, self.output), predict


def _rows_of(argument: Any, rows: Tensor, examples: int) -> Any:
    is_per_example = isinstance(argument, Tensor) and argument.ndim > 0 and len(argument) == examples
    return argument[rows.to(argument.device)] if is_per_example else argument


def _of_rows(predict: Callable[[Tensor, Tensor], Tensor], part: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda images, rows: predict(images, part[rows])


def _check_output(output: Any, images: Tensor) -> None:
    if not isinstance(output, Tensor):
        raise TypeError(
            f"forward_func must return a tensor, received {type(output).__name__}; "
            "wrap it, for instance as lambda x: model(x).logits"
        )
    if output.ndim == 0 or len(output) != len(images):
        raise ValueError(f"forward_func must give one output per example: {tuple(output.shape)} for {len(images)} images")
    if output.dtype == torch.bool or not output.is_floating_point():
        raise ValueError(f"forward_func must give floating point outputs that can be differentiated, received {output.dtype}")


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, received {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, received {value}")


def _warn_of_failures(result: Counterfactual) -> None:
    failures = Counter(status for status in result.statuses() if status in REASONS)
    if failures:
        reasons = ", ".join(f"{count} {status.name} ({REASONS[status]})" for status, count in failures.items())
        message = f"{sum(failures.values())} of {len(result)} examples were not reached: {reasons}"
        warnings.warn(message, CounterfactualWarning, stacklevel=4)


@contextmanager
def _progress_bar(show: bool, name: str, total: int) -> Iterator[Callable[[int], Callable[[int], None]]]:
    """Gives, for a batch of some size, a function that is told how many of it are still searching."""
    if not show:
        yield lambda size: lambda searching: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=name, unit="image") as bar:

        def of_batch(size: int) -> Callable[[int], None]:
            start = bar.n

            def update(searching: int) -> None:
                bar.update(start + size - searching - bar.n)

            return update

        yield of_batch
