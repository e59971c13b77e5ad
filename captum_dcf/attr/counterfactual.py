r"""CounterfactualAttribution: what all counterfactual methods share, in Captum's manner."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import GradientAttribution
from captum.log import log_usage
from captum.robust import Perturbation
from torch import Tensor

from captum_dcf.attr._batches import BatchSize, check_batch_size, is_out_of_memory, search_in_batches
from captum_dcf.attr._captum import TargetType
from captum_dcf.attr._checks import (
    check_data_range,
    check_inputs,
    check_modules,
    check_tensor,
    modules_of,
    single_tensor,
)
from captum_dcf.attr._predict import of_rows, predictor
from captum_dcf.attr._target import parse_target, select_classes, select_outputs
from captum_dcf.attr._warnings import warn_of_failures, warn_of_range
from captum_dcf.attr.kept import frozen_parameters, ordinary_mode
from captum_dcf.generators.base import Generator
from captum_dcf.search.goal import OUTPUT_KINDS, Goal, LeaveClass, OutputKind, ReachClass
from captum_dcf.search.result import Counterfactual

__all__ = ["CounterfactualAttribution", "Query"]


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

    Attributes:
        default_max_steps: Most steps of one example where a call does not say another number.
        softening: That of class goals that do not say one themselves, see :class:`ReachClass`.
    """

    default_max_steps: int = 500
    softening: float = 0.0

    def __init__(
        self, forward_func: Callable[..., Tensor], generator: Generator, output: OutputKind = "logits"
    ) -> None:
        super().__init__(forward_func)
        if not callable(forward_func):
            raise TypeError(f"forward_func must be a module or a function, received {type(forward_func).__name__}")
        if not isinstance(generator, Generator):
            raise TypeError(
                f"generator must be a captum_dcf Generator, received {type(generator).__name__}: wrap a flow in "
                "NormalizingFlowGenerator, an encoder and a decoder in AutoencoderGenerator"
            )
        if output not in OUTPUT_KINDS:
            raise ValueError(f"output must be one of {OUTPUT_KINDS}, received {output!r}")
        self.generator = generator
        self.output: OutputKind = output

    @abstractmethod
    def search(self, query: Query) -> Counterfactual:
        r"""The method itself: counterfactuals of one batch."""
        raise NotImplementedError(f"{type(self).__name__} has to write search")

    @log_usage(part_of_slo=False)
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        confidence: float = 0.99,
        goal: Goal | None = None,
        max_steps: int | None = None,
        refine: bool = False,
        internal_batch_size: BatchSize = None,
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
            additional_forward_args: Further arguments of ``forward_func``, one or a tuple. Tensors whose first
                dimension is N belong to the examples one by one; anything else is passed as it is.
            confidence: Λ, the probability of the target from which on it counts as reached, in (0, 1).
            goal: Another goal than a class: ``LeaveClass``, ``AtLeast``, ``AtMost``, ``Near`` or one of your own.
            max_steps: Most steps of one example; by default those of the method, ``default_max_steps``.
            refine: Shorten the last step by bisection, down to the threshold of the goal.
            internal_batch_size: Search so many examples at a time, to bound memory; all at once by default. ``"auto"``
                takes more and more of them while that is faster, and fewer where memory does not suffice. Results do
                not depend on it but for rounding.
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
            inputs,
            target,
            additional_forward_args,
            confidence,
            goal,
            max_steps,
            refine,
            internal_batch_size,
            show_progress,
        )
        warn_of_failures(result, stacklevel=4)
        attributions = result.attributions.contiguous()
        return (attributions,) if isinstance(inputs, tuple) else attributions

    def perturb(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        confidence: float = 0.99,
        goal: Goal | None = None,
        max_steps: int | None = None,
        refine: bool = False,
        internal_batch_size: BatchSize = None,
        show_progress: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""x', the counterfactuals themselves. Arguments, warning and errors as in :meth:`attribute`."""
        result = self.counterfactual(
            inputs,
            target,
            additional_forward_args,
            confidence,
            goal,
            max_steps,
            refine,
            internal_batch_size,
            show_progress,
        )
        warn_of_failures(result, stacklevel=3)
        counterfactuals = result.counterfactuals.contiguous()
        return (counterfactuals,) if isinstance(inputs, tuple) else counterfactuals

    def counterfactual(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        confidence: float = 0.99,
        goal: Goal | None = None,
        max_steps: int | None = None,
        refine: bool = False,
        internal_batch_size: BatchSize = None,
        show_progress: bool = False,
        keep_path: bool = False,
    ) -> Counterfactual:
        r"""Everything there is to know: images, latents, scores and how the search of each example ended.

        Arguments and errors as in :meth:`attribute`. Examples that were not reached are not warned of, the status says
        it; inputs beyond the generator's range are.

        Args:
            keep_path: Keep the images of all steps.
        """
        tensor, _ = single_tensor(inputs)
        check_inputs(tensor)
        max_steps = self.default_max_steps if max_steps is None else max_steps
        _check_count("max_steps", max_steps)
        check_batch_size(internal_batch_size)
        modules = [*modules_of(self.forward_func), self.generator]
        check_modules(modules)
        check_data_range(self.generator)
        warn_of_range(tensor, self.generator.data_range, stacklevel=3)
        with ordinary_mode(tensor.device), frozen_parameters(modules), self.generator.constant():
            own = tensor.detach().clone()
            goal, predict = self._resolve(own, target, additional_forward_args, confidence, goal)
            with _progress_bar(show_progress, self.get_name(), len(own)) as bar:

                def search(start: int, stop: int) -> Counterfactual:
                    rows = torch.arange(start, stop, device=own.device)
                    predict_part = of_rows(predict, rows)
                    on_round = bar(stop)
                    query = Query(own[rows], predict_part, goal.take(rows), max_steps, refine, keep_path, on_round)
                    part = self.search(query)
                    on_round(0)
                    return part

                parts = search_in_batches(len(own), internal_batch_size, search)
        return Counterfactual.concatenate(parts)

    def attribute_future(self, *args: Any, **kwargs: Any) -> None:
        r"""Not implemented, as in most methods of Captum."""
        raise NotImplementedError(f"attribute_future is not implemented for {type(self).__name__}")

    def encode(self, inputs: Tensor) -> Tensor:
        r"""The latents of inputs, checked: (N, D), and decoded to the inputs' shape.

        Pixels beyond the generator's range are put on its bound first: a flow has no latents for them.

        Raises:
            ValueError: The generator cannot encode such inputs, or its latents are not (N, D).
        """
        name = type(self.generator).__name__
        bounds = self.generator.data_range
        with _told(self.generator, "encode inputs", inputs), torch.no_grad():
            latents = self.generator.encode(inputs if bounds is None else inputs.clamp(*bounds))
        check_tensor(f"{name}.encode", latents)
        if latents.ndim != 2 or len(latents) != len(inputs):
            raise ValueError(f"{name}.encode must give ({len(inputs)}, D), received {tuple(latents.shape)}")
        return latents.detach()

    def decode(self, latents: Tensor, image_shape: torch.Size) -> Tensor:
        r"""The images of latents, checked to have the shape of the inputs' images.

        Raises:
            ValueError: The generator cannot decode such latents, or its images have another shape.
        """
        with _told(self.generator, "decode latents", latents):
            images = self.generator.decode(latents)
        check_tensor(f"{type(self.generator).__name__}.decode", images)
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
        if goal is not None and not isinstance(goal, Goal):
            raise TypeError(f"goal must be a captum_dcf Goal, received {type(goal).__name__}")
        if goal is not None:
            goal.check_length(len(inputs))
        indices = None if target is None else parse_target(target, len(inputs), inputs.device)
        select = select_classes if goal is None else select_outputs
        goal = self._completed(goal, indices, confidence)
        raw = predictor(self.forward_func, additional, len(inputs))

        def predict(images: Tensor, rows: Tensor) -> Tensor:
            output = raw(images, rows)
            return output if indices is None else select(output, indices[rows])

        return goal, predict

    def _completed(self, goal: Goal | None, indices: Tensor | None, confidence: float) -> Goal:
        """The goal with what it leaves to the method; the class that the target names where there is none."""
        if goal is None:
            if indices is None:
                raise ValueError("say what to reach: target=, the class, or goal=, for instance AtLeast(0.8)")
            return ReachClass(indices[:, 0], confidence).completed(self.output, self.softening)
        if not isinstance(goal, (ReachClass, LeaveClass)):
            return goal
        completed = goal.completed(self.output, self.softening)
        if indices is not None and completed.kind != "binary_logit":
            name = type(goal).__name__
            raise ValueError(f"target= picks one output, but {name} names a class among all: leave target= away")
        return completed


@contextmanager
def _told(generator: Generator, what: str, values: Tensor) -> Iterator[None]:
    """A block whose errors of shape, type and device say what they were about."""
    try:
        yield
    except (RuntimeError, IndexError) as error:
        if type(error) not in (RuntimeError, IndexError) or is_out_of_memory(error):
            raise
        accepted = next((f", its parameters are {p.dtype} on {p.device}" for p in generator.parameters()), "")
        raise ValueError(
            f"{type(generator).__name__} cannot {what} of shape {tuple(values.shape)}, {values.dtype} on "
            f"{values.device}{accepted}: {error}"
        ) from error


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, received {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, received {value}")


@contextmanager
def _progress_bar(show: bool, name: str, total: int) -> Iterator[Callable[[int], Callable[[int], None]]]:
    """Gives, for the batch that ends before an example, a function that is told how many of it still search."""
    if not show:
        yield lambda stop: lambda searching: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=name, unit="image") as bar:

        def of_batch(stop: int) -> Callable[[int], None]:
            def update(searching: int) -> None:
                bar.update(stop - searching - bar.n)

            return update

        yield of_batch
