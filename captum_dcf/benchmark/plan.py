r"""What a benchmark consists of: images, methods, measures, and the settings that tell one run from another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from captum_dcf.attr import CounterfactualAttribution
from captum_dcf.generators import Generator
from captum_dcf.search import Counterfactual

__all__ = [
    "COLUMNS",
    "Case",
    "Measure",
    "Method",
    "NotApplicable",
    "Plan",
    "SaliencyMap",
    "counterfactual_methods",
]

# What every row of the table says, before the measures; the last column of all is the error.
IDENTITY = ("image", "source", "target", "method", "generator", "confidence")
OUTCOME = ("status", "found", "steps", "start_score", "end_score", "seconds", "memory_mib")
COLUMNS = (*IDENTITY, *OUTCOME)
ERROR = "error"


class NotApplicable(Exception):
    r"""A measure asked for what a method does not give: its cell stays empty."""


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


@dataclass(frozen=True)
class Method:
    r"""A method under its name in the table.

    Attributes:
        name: Its name; with ``generator`` and ``confidence`` it must be unique in a plan.
        explain: From images (N, ...) and the classes to reach, int64 (N,), to what the method gives: a
            :class:`~captum_dcf.Counterfactual`, counterfactuals x' as a tensor, or a :class:`SaliencyMap`. For instance
            ``DiffeomorphicCounterfactual(model, generator).counterfactual``.
        generator: The name of the generator it searches with, for the table.
        confidence: The confidence Λ it is to reach, for the table.
    """

    name: str
    explain: Callable[[Tensor, Tensor], Outcome]
    generator: str = ""
    confidence: float | None = None

    @property
    def key(self) -> tuple[str, str, float | None]:
        r"""What tells it from the other methods of a plan."""
        return self.name, self.generator, self.confidence


@dataclass(frozen=True)
class Case:
    r"""What a measure is given: some examples, and what one method made of them.

    Attributes:
        inputs: x, (N, ...).
        labels: The classes the data set gives them, int64 (N,).
        targets: The classes to be reached, int64 (N,).
        outcome: What the method gave.
        explain: The method itself, for measures that ask it about other images.
    """

    inputs: Tensor
    labels: Tensor
    targets: Tensor
    outcome: Outcome
    explain: Callable[[Tensor, Tensor], Outcome]

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
    def attributions(self) -> Tensor:
        r"""x' - x, or what the saliency method gave."""
        return _attributions(self.inputs, self.outcome)

    @property
    def explained(self) -> Tensor:
        r"""The classes whose scores the attributions speak of: those to be reached, for x' - x."""
        return self.outcome.explained if isinstance(self.outcome, SaliencyMap) else self.targets

    def attribute(self, inputs: Tensor, targets: Tensor) -> Tensor:
        r"""The method's attributions for other images."""
        return _attributions(inputs, self.explain(inputs, targets))

    def copy(self) -> Case:
        r"""The same with tensors of its own, so that whoever writes into them changes nothing of the others'."""
        outcome = self.outcome.detach().clone() if isinstance(self.outcome, Tensor) else _with_own_tensors(self.outcome)
        return replace(_with_own_tensors(self), outcome=outcome)


Measure = Callable[[Case], Tensor]


@dataclass(frozen=True)
class Plan:
    r"""A benchmark: every method on every image, judged by every measure.

    Attributes:
        images: A map-style dataset of pairs (image, class): floating point tensors, read one shard at a time.
        model: The explained model, images to logits. Tells whether x' was found where a method gives only x'.
        target: The class to reach.
        methods: The methods.
        measures: By the name of its column, a function of a :class:`Case` that gives one value per example, (N,).
        title: For the report.
        shard_size: Images that are read, searched and written together.
        seed: What random measures and methods draw with.
        device: Where the images go: ``"cpu"``, ``"mps"`` or ``"cuda"``; of several GPUs each process takes its own.
        settings: What else tells this run from others, JSON values by name: the weights of a method, the version of the
            data. A folder holds the shards of one setting only.

    Raises:
        TypeError: A method or a measure is not callable.
        ValueError: Nothing to do, two methods of one name, a measure with the name of another column, a number out of
            range.

    Examples:
        >>> from captum_dcf.data import mnist_sample
        >>> images = torch.utils.data.TensorDataset(*mnist_sample())
        >>> darker = Method("darker", lambda images, targets: 0.5 * images)
        >>> brightness = {"brightness": lambda case: case.counterfactuals.flatten(1).mean(1)}
        >>> len(Plan(images, torch.nn.Flatten(), 9, [darker], brightness).methods)
        1
    """

    images: Dataset[Any]
    model: Callable[..., Tensor]
    target: int
    methods: Sequence[Method]
    measures: Mapping[str, Measure]
    title: str = "Benchmark"
    shard_size: int = 32
    seed: int = 0
    device: str = "cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_methods(self.methods)
        _check_measures(self.measures)
        _check_count("shard_size", self.shard_size, 1)
        _check_count("target", self.target, 0)
        _check_count("seed", self.seed, 0)
        if not hasattr(self.images, "__len__") or not hasattr(self.images, "__getitem__"):
            raise TypeError(f"images must be a map-style dataset with a length, received {type(self.images).__name__}")
        if not self.length:
            raise ValueError("there must be at least one image, received an empty dataset")

    @property
    def length(self) -> int:
        r"""Number of images."""
        return len(self.images)  # type: ignore[arg-type]

    @property
    def columns(self) -> list[str]:
        r"""The columns of the table."""
        return [*COLUMNS, *self.measures, ERROR]

    def shards(self) -> dict[int, range]:
        r"""The images of each shard, by its number."""
        starts = range(0, self.length, self.shard_size)
        return {number: range(start, min(start + self.shard_size, self.length)) for number, start in enumerate(starts)}

    def keys(self, numbers: range) -> list[tuple[int, str, str, float | None]]:
        r"""What each row of a shard is recognised by, given the shard's images."""
        return [(number, *method.key) for method in self.methods for number in numbers]

    def described(self) -> dict[str, Any]:
        r"""What a run is recognised by, as JSON holds it."""
        return {
            "title": self.title,
            "images": self.length,
            "target": self.target,
            "methods": [list(method.key) for method in self.methods],
            "measures": list(self.measures),
            "shard_size": self.shard_size,
            "seed": self.seed,
            "device": self.device,
            "settings": dict(self.settings),
            # The number of threads changes how sums are rounded.
            "threads": torch.get_num_threads() if torch.device(self.device).type == "cpu" else None,
            "versions": {"captum_dcf": version("captum_dcf"), "torch": torch.__version__},
        }


def counterfactual_methods(
    factories: Mapping[str, Callable[..., CounterfactualAttribution]],
    model: Callable[..., Tensor],
    generators: Mapping[str, Generator],
    confidences: Sequence[float] = (0.99,),
    **arguments: Any,
) -> list[Method]:
    r"""Every counterfactual method with every generator and confidence.

    Args:
        factories: By name, a class such as ``Revise``, or a function, that makes a method from model and generator;
            ``partial(Revise, distance_weight=0.1)`` to set more.
        model: The explained model.
        generators: Generators by name.
        confidences: Λ, each in (0, 1).
        arguments: Further arguments of ``counterfactual``, such as ``max_steps``.

    Examples:
        >>> from captum_dcf import DiffeomorphicCounterfactual, IdentityGenerator, Revise
        >>> factories = {"ours": DiffeomorphicCounterfactual, "REVISE": Revise}
        >>> pixels = {"pixels": IdentityGenerator((1, 28, 28))}
        >>> methods = counterfactual_methods(factories, torch.nn.Flatten(), pixels, confidences=[0.5, 0.99])
        >>> [method.name for method in methods]
        ['ours', 'ours', 'REVISE', 'REVISE']
    """
    methods = []
    for name, factory in factories.items():
        for generator_name, generator in generators.items():
            attribution = factory(model, generator)
            for confidence in confidences:
                explain = partial(attribution.counterfactual, confidence=confidence, **arguments)
                methods.append(Method(name, explain, generator_name, confidence))
    return methods


def _with_own_tensors(record: Any) -> Any:
    """A copy of a dataclass with its tensors copied and detached."""
    tensors = {part.name: getattr(record, part.name) for part in fields(record)}
    return replace(record, **{name: one.detach().clone() for name, one in tensors.items() if isinstance(one, Tensor)})


def _attributions(inputs: Tensor, outcome: Outcome) -> Tensor:
    if isinstance(outcome, Tensor):
        return outcome - inputs
    return outcome.attributions


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, received {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, received {value}")


def _check_methods(methods: Any) -> None:
    for method in methods:
        if not isinstance(method, Method):
            raise TypeError(f"methods must be benchmark Methods, received {type(method).__name__}")
        if not callable(method.explain):
            raise TypeError(f"the method {method.name!r} must be callable, received {type(method.explain).__name__}")
        if not isinstance(method.name, str) or not isinstance(method.generator, str):
            raise TypeError(f"names of methods and generators must be strings, received {method.key}")
        if method.confidence is not None and not 0 < method.confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, received {method.confidence} for {method.name!r}")
    keys = [method.key for method in methods]
    if not keys:
        raise ValueError("there must be at least one method, received none")
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"methods must differ in name, generator or confidence; there are two of {', '.join(twice)}")


def _check_measures(measures: Any) -> None:
    for name, measure in measures.items():
        if not isinstance(name, str):
            raise TypeError(f"names of measures must be strings, received {name!r}")
        if not callable(measure):
            raise TypeError(f"the measure {name!r} must be callable, received {type(measure).__name__}")
    taken = sorted({*COLUMNS, ERROR} & set(measures))
    if taken:
        raise ValueError(f"a measure cannot be called {', '.join(taken)}: the table has such a column already")
