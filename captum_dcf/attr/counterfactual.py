r"""CounterfactualAttribution: what all counterfactual methods share, in Captum's manner."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

from captum.attr import GradientAttribution
from captum.log import log_usage
from captum.robust import Perturbation
from torch import Tensor, nn

from captum_dcf.attr._about import described
from captum_dcf.attr._captum import TargetType
from captum_dcf.attr._checks import (
    check_channels,
    check_choice,
    check_data_range,
    check_inputs,
    check_normalize,
    single_tensor,
)
from captum_dcf.attr._modules import check_modules, modules_of
from captum_dcf.attr._support import support_of
from captum_dcf.attr._target import parse_target
from captum_dcf.attr._warnings import warn_of_failures, warn_of_range
from captum_dcf.context import fixed_parameters, ordinary_mode
from captum_dcf.search import Coordinates, Counterfactual, Goal, Model, Options, Problem, ReachClass, Searcher, run
from captum_dcf.search.model import OUTPUT_KINDS, OutputKind, Select
from captum_dcf.search.options import DEFAULT_CONFIDENCE, OptionNames
from captum_dcf.search.target import select_classes, select_outputs
from captum_dcf.search.term import Term

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["CounterfactualAttribution", "ModelOptions"]


class ModelOptions(TypedDict, total=False):
    r"""How a method reads the model; every method takes these by keyword, see :class:`CounterfactualAttribution`."""

    output: OutputKind
    select: Select
    normalize: tuple[float | Sequence[float], float | Sequence[float]] | None


class CounterfactualAttribution(GradientAttribution, Perturbation, ABC):
    r"""Base of all methods that answer "what would have to change?" with another image.

    A method says in which :meth:`coordinates` it searches and which :meth:`searcher` proposes candidates; the three
    ways to ask it are here. ``attribute`` returns x' - x and is what Captum's tools call, ``perturb`` returns x'
    (Captum's ``Perturbation``), ``counterfactual`` returns everything there is to know. All three take the same
    arguments.

    Nothing of the caller's is changed: inputs, parameters and their ``.grad``, training flags, hooks, caches. A model
    or generator that draws random numbers or counts in a buffer does so in a search too. Modules in training mode are
    refused where torch's layers say that their output depends on chance or on the others in the batch. What a layer of
    your own does in training mode, ``functional.dropout`` for instance, is yours to know, and so is the mode of modules
    that cannot be seen: a function is searched for those it names or calls, but in ``lambda x: trainer.model(x)`` the
    model is hidden in an object. Call ``.eval()`` first.

    Args:
        forward_func: The model: images (N, ...), and additional arguments, to outputs.
        output: What the model gives: ``"logits"`` or ``"probabilities"`` of shape (N, classes), or ``"binary_logit"``
            of shape (N,) or (N, 1), positive for class 1. Of no concern to goals that speak of values.
        select: Which part of the model's output is meant, where it is no tensor: a name, an index, or a function of the
            output. By default ``.logits`` of an object, ``["logits"]`` of a mapping, the first of a tuple or list.
        normalize: Mean and standard deviation, numbers or one per channel, by which the model wants pixels
            standardised. Images stay in the range of the generator; the model is shown (x - mean) / deviation.

    Attributes:
        default_max_steps: Most steps of one example where a call does not say another number.
        softening: That of the loss of goals of classes, see :class:`ReachClass`.
        default_min_percentile: The support floor where a call does not say another; 0 for none.
        has_latents: Whether the coordinates are those of a generator, which a result names.
    """

    default_max_steps: int = 500
    softening: float = 0.0
    default_min_percentile: float = 0.0
    has_latents: bool = True

    def __init__(
        self,
        forward_func: Callable[..., Any],
        output: OutputKind = "logits",
        select: Select = None,
        normalize: tuple[float | Sequence[float], float | Sequence[float]] | None = None,
    ) -> None:
        super().__init__(forward_func)
        if not callable(forward_func):
            raise TypeError(f"forward_func must be a module or a function, received {type(forward_func).__name__}")
        check_choice("output", output, OUTPUT_KINDS)
        if select is not None and (
            isinstance(select, bool) or not (callable(select) or isinstance(select, (str, int)))
        ):
            raise TypeError(f"select must be a name, an index or a function, received {type(select).__name__}")
        check_normalize(normalize)
        self.output: OutputKind = output
        self.select = select
        self.normalize = normalize

    @abstractmethod
    def coordinates(self, inputs: Tensor) -> Coordinates:
        r"""What inputs of this shape are searched in."""

    @abstractmethod
    def searcher(self, problem: Problem, max_steps: int) -> Searcher:
        r"""What proposes candidates for this problem, in at most so many steps of one example."""

    def terms(self, inputs: Tensor, model: Model, goal: Goal, coordinates: Coordinates) -> tuple[Term, ...]:
        r"""What this method adds to the loss of the goal; nothing by default."""
        return ()

    def check_goal(self, goal: Goal) -> Goal:
        r"""The goal as this method searches for it.

        Raises:
            ValueError: It cannot search for such a goal.
        """
        return goal

    def check_options(self, options: Options) -> None:
        r"""Raises a ValueError for options that have no meaning for this method."""

    def modules(self) -> list[nn.Module]:
        r"""The modules that a search of this method calls, as far as they are known: they have to be ready for it."""
        return modules_of(self.forward_func)

    @log_usage(part_of_slo=False)
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        **options: Unpack[OptionNames],
    ) -> Tensor | tuple[Tensor, ...]:
        r"""x' - x: what has to change in each input for the model to give the target's class.

        ``target`` names the class to *reach*, not the output to explain, as in
        ``captum.robust.PGD.perturb(..., targeted=True)``.

        Args:
            inputs: x, floating point (N, ...), or a tuple of one such tensor.
            target: The class to reach: an int, a tensor of one integer, a list or 1-D tensor with one integer per
                example; for outputs with more dimensions (N, classes, ...) a tuple of ints, class first, or a list of
                one tuple per example. With ``goal`` it has Captum's meaning instead: the output the goal speaks of. A
                class counts from 0; other indices may be negative and then count from the end, as in Captum.
            additional_forward_args: Further arguments of ``forward_func``, one or a tuple. Tensors whose first
                dimension is N belong to the examples one by one; anything else is passed as it is.
            options: ``goal``, ``confidence``, ``max_steps``, ``min_percentile`` and the others of
                :class:`~captum_dcf.search.Options`.

        Returns:
            x' - x, of the inputs' shape, dtype and device, in a tuple if they came in one. If some examples were not
            found, their best attempt, and one :class:`CounterfactualWarning`.

        Raises:
            TypeError: An argument of a kind that is not accepted.
            ValueError: An argument of a shape or value that is not accepted, a model without gradient or in training
                mode with batch statistics, a generator whose images have another shape than the inputs.
        """
        result = self._searched(inputs, target, additional_forward_args, options, stacklevel=5)
        warn_of_failures(result, stacklevel=4)
        attributions = result.attributions.contiguous()
        return (attributions,) if isinstance(inputs, tuple) else attributions

    def perturb(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        **options: Unpack[OptionNames],
    ) -> Tensor | tuple[Tensor, ...]:
        r"""x', the counterfactuals themselves. Arguments, warning and errors as in :meth:`attribute`."""
        result = self._searched(inputs, target, additional_forward_args, options, stacklevel=4)
        warn_of_failures(result, stacklevel=3)
        counterfactuals = result.counterfactuals.contiguous()
        return (counterfactuals,) if isinstance(inputs, tuple) else counterfactuals

    def counterfactual(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        **options: Unpack[OptionNames],
    ) -> Counterfactual:
        r"""Everything there is to know: images, latents, scores and how the search of each example ended.

        Arguments and errors as in :meth:`attribute`. Examples that were not found are not warned of, the status says
        it; inputs beyond the range of pixels are.
        """
        return self._searched(inputs, target, additional_forward_args, options, stacklevel=4)

    def attribute_future(self, *args: Any, **kwargs: Any) -> None:
        r"""Not implemented, as in most methods of Captum."""
        raise NotImplementedError(f"attribute_future is not implemented for {type(self).__name__}")

    def _searched(
        self, inputs: Any, target: TargetType, additional: Any, options: OptionNames, stacklevel: int
    ) -> Counterfactual:
        """The result of a call; warnings point so many levels up, to the line that asked."""
        tensor, _ = single_tensor(inputs)
        check_inputs(tensor)
        check_channels(self.normalize, tensor)
        _check_names(self.get_name(), options)
        asked = Options(**options)
        self.check_options(asked)
        modules = self.modules()
        check_modules(modules)
        coordinates = self.coordinates(tensor)
        check_data_range(coordinates.data_range, type(coordinates).__name__)
        generators = list({id(one): one for one in (coordinates, *modules) if isinstance(one, Coordinates)}.values())
        for generator in generators:
            generator.check_ready()
        warn_of_range(tensor, coordinates.data_range, stacklevel)
        max_steps = self.default_max_steps if asked.max_steps is None else asked.max_steps
        with ExitStack() as contexts:
            contexts.enter_context(ordinary_mode(tensor.device))
            contexts.enter_context(fixed_parameters(modules))
            for generator in generators:
                contexts.enter_context(generator.constant())
            own = tensor.detach().clone()
            asked = replace(asked, latents=_own_latents(asked.latents, own))
            problem = self._problem(own, coordinates, target, additional, asked)
            searcher = self.searcher(problem, max_steps)
            with _progress_bar(asked.show_progress, self.get_name(), len(own)) as on_end:
                result = run(problem, searcher, asked, max_steps, self.has_latents, on_end)
        return replace(result, about=described(self, problem.goal, target, coordinates, asked, max_steps))

    def _problem(
        self, inputs: Tensor, coordinates: Coordinates, target: TargetType, additional: Any, options: Options
    ) -> Problem:
        indices = None if target is None else parse_target(target, len(inputs), inputs.device)
        goal = self.check_goal(_goal(options, indices))
        goal.check_length(len(inputs))
        pick = None if indices is None else _picking(indices, of_classes=options.goal is None)
        arguments = additional if isinstance(additional, tuple) else () if additional is None else (additional,)
        kind = self.output if goal.of_classes else None
        # On the inputs' device once, not in every round.
        normalize = self.normalize and tuple(inputs.new_tensor(part) for part in self.normalize)
        model = Model(self.forward_func, len(inputs), arguments, kind, self.select, normalize, pick)
        if options.goal is not None and goal.of_classes and indices is not None and kind != "binary_logit":
            name = type(options.goal).__name__
            raise ValueError(f"target= picks one output, but {name} names a class among all: omit target=")
        terms = self.terms(inputs, model, goal, coordinates)
        measured, floor = None, -math.inf
        if self.has_latents:
            percentile = self.default_min_percentile if options.min_percentile is None else options.min_percentile
            measured, floor = support_of(coordinates, percentile, options.min_percentile is not None)
        return Problem(inputs, model, goal, coordinates, terms, self.softening, measured, floor)


def _check_names(method: str, options: Mapping[str, Any]) -> None:
    known = list(OptionNames.__annotations__)
    unknown = [name for name in options if name not in known]
    if unknown:
        raise TypeError(f"{method} has no option {', '.join(unknown)}; its options are {', '.join(known)}")


def _goal(options: Options, indices: Tensor | None) -> Goal:
    if options.goal is not None:
        return options.goal
    if indices is None:
        raise ValueError("say what to reach: target=, the class, or goal=, for instance AtLeast(0.8)")
    return ReachClass(indices[:, 0], DEFAULT_CONFIDENCE if options.confidence is None else options.confidence)


def _picking(indices: Tensor, of_classes: bool) -> Callable[[Tensor, Tensor], Tensor] | None:
    """From an output and its rows what the targets name: the logits of all classes at a place, or one value."""
    if of_classes and indices.shape[1] == 1:
        return None
    return partial(select_classes if of_classes else select_outputs, indices)


def _own_latents(latents: Tensor | None, inputs: Tensor) -> Tensor | None:
    if latents is None:
        return None
    if len(latents) != len(inputs):
        raise ValueError(f"latents must be one for each of the {len(inputs)} inputs, received {tuple(latents.shape)}")
    return latents.detach().to(inputs.device)


@contextmanager
def _progress_bar(show: bool, name: str, total: int) -> Iterator[Callable[[int], None] | None]:
    """Gives a function of the number of examples that have ended, which moves a bar; None without one."""
    if not show:
        yield None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=name, unit="image") as bar:
        yield lambda ended: bar.update(ended - bar.n)
