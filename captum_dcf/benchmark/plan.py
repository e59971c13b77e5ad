r"""What a benchmark consists of: images, a goal, methods, metrics, and the settings that tell one run from another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from captum_dcf.attr import CounterfactualAttribution
from captum_dcf.benchmark.case import Explain, Metric, Outcome
from captum_dcf.benchmark.comparison import Expectation, PublishedAre
from captum_dcf.benchmark.goals import GoalOf
from captum_dcf.generators import Generator
from captum_dcf.search import Goal, ReachClass

__all__ = ["COLUMNS", "ENDED", "ERROR", "Method", "Plan", "counterfactual_methods"]

# What every row of the table says, before the metrics; the last column of all is the error.
IDENTITY = ("image", "label", "target", "method", "generator", "confidence")
ENDED = ("status", "already_there", "found", "steps", "start_score", "end_score")
COLUMNS = (*IDENTITY, *ENDED, "seconds", "memory_mib")
ERROR = "error"
# What goals are tried on: the label of one example.
_NO_LABEL = torch.zeros(1, dtype=torch.int64)


@dataclass(frozen=True)
class Method:
    r"""A method under its name in the table.

    Attributes:
        name: Its name; with ``generator`` and ``confidence`` it must be unique in a plan.
        explain: From images (N, ...) and a goal to what the method gives: a :class:`~captum_dcf.Counterfactual`,
            counterfactuals x' as a tensor, or a :class:`~captum_dcf.benchmark.SaliencyMap`.
        generator: The name of the generator it searches with, for the table.
        confidence: The confidence Λ it is to reach, for the table.
    """

    name: str
    explain: Explain
    generator: str = ""
    confidence: float | None = None

    @property
    def key(self) -> tuple[str, str, float | None]:
        r"""What tells it from the other methods of a plan."""
        return self.name, self.generator, self.confidence


@dataclass(frozen=True)
class Plan:
    r"""A benchmark: every method on every image, judged by every metric.

    Attributes:
        images: A map-style dataset of pairs (image, label): floating point tensors, read one shard at a time; labels
            are classes (int) or values (float).
        model: The explained model. Tells whether x' was found where a method gives only x'.
        goal: From labels (N,) to what is to be reached: ``reach(9)``, ``leave()``, ``shift(0.5)`` of
            :mod:`captum_dcf.benchmark.goals`, or ``lambda labels: AtLeast(2 * labels)``.
        methods: The methods.
        metrics: By the name of its column, a function of a :class:`~captum_dcf.benchmark.Case` that gives one value per
            example, (N,); with attributes ``better`` and ``of`` as :func:`captum_dcf.metrics.metric` gives them, the
            report shows its direction, and it may give one number for all examples of a method.
        class_names: Names of classes by label; the table says them in the place of labels.
        title: For the report.
        published: Published figures, to be shown below those measured, by metric and method.
        published_are: What these are, ``"means"`` or ``"medians"``.
        expected: Orders of the methods that are expected, to be compared with those measured.
        shard_size: Images that are read, searched and written together.
        seed: What random metrics and methods draw with.
        device: Where the images go: ``"cpu"``, ``"mps"`` or ``"cuda"``; of several GPUs each process takes its own.
        settings: What else tells this run from others, JSON values by name: the weights of a method, the version of the
            data. A folder holds the shards of one setting only.

    Raises:
        TypeError: A method or a metric is not callable, or ``goal`` gives no goal.
        ValueError: Nothing to do, two methods of one name, a metric with the name of another column, a number out of
            range.

    Examples:
        >>> from captum_dcf.benchmark import reach
        >>> from captum_dcf.data import mnist_sample
        >>> images = torch.utils.data.TensorDataset(*mnist_sample())
        >>> darker = Method("darker", lambda images, goal: 0.5 * images)
        >>> brightness = {"brightness": lambda case: case.counterfactuals.flatten(1).mean(1)}
        >>> len(Plan(images, torch.nn.Flatten(), reach(9), [darker], brightness).methods)
        1
    """

    images: Dataset[Any]
    model: Callable[..., Tensor]
    goal: GoalOf
    methods: Sequence[Method]
    metrics: Mapping[str, Metric]
    class_names: Mapping[int, str] = field(default_factory=dict)
    title: str = "Benchmark"
    published: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    published_are: PublishedAre = "means"
    expected: Sequence[Expectation] = ()
    shard_size: int = 32
    seed: int = 0
    device: str = "cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_methods(self.methods)
        _check_metrics(self.metrics)
        _check_count("shard_size", self.shard_size, 1)
        _check_goal(self.goal)
        if self.published_are not in get_args(PublishedAre):
            raise ValueError(f"published_are must be 'means' or 'medians', received {self.published_are!r}")
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
        return [*COLUMNS, *self.metrics_of("example"), ERROR]

    def named(self, label: Any) -> Any:
        r"""What the table says of a label: its name, if the plan has names and it is a class."""
        return self.class_names.get(label, str(label)) if self.class_names and isinstance(label, int) else label

    @property
    def named_columns(self) -> list[str]:
        r"""The columns of the table that hold names of classes."""
        columns = ["label", "target"] if isinstance(self.goal(_NO_LABEL), ReachClass) else ["label"]
        return columns if self.class_names else []

    def metrics_of(self, what: Literal["example", "set"]) -> dict[str, Metric]:
        r"""The metrics that give a value per example, or one for a set."""
        return {name: metric for name, metric in self.metrics.items() if getattr(metric, "of", "example") == what}

    def directions(self) -> dict[str, str]:
        r"""By metric "higher" or "lower", whichever is better, where it says so."""
        better = {name: getattr(metric, "better", None) for name, metric in self.metrics.items()}
        return {name: one for name, one in better.items() if one is not None}

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
            "goal": _goal_as_text(self.goal),
            "class_names": {str(label): name for label, name in self.class_names.items()},
            "methods": [list(method.key) for method in self.methods],
            "metrics": list(self.metrics),
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
    confidences: Sequence[float | None] = (0.99,),
    **arguments: Any,
) -> list[Method]:
    r"""Every counterfactual method with every generator and confidence.

    Args:
        factories: By name, a class such as ``Revise``, or a function, that makes a method from model and generator;
            ``partial(Revise, distance_weight=0.1)`` to set more, and for one that searches in pixels
            ``lambda model, generator: AdversarialExample(model, generator.data_range)``.
        model: The explained model.
        generators: Generators by name.
        confidences: Λ, each in (0, 1); ``[None]`` where a value is to be reached.
        arguments: Further arguments of ``counterfactual``, such as ``max_steps``.

    Examples:
        >>> from captum_dcf import DiffeomorphicCounterfactual, Pixels, Revise
        >>> factories = {"ours": DiffeomorphicCounterfactual, "REVISE": Revise}
        >>> pixels = {"pixels": Pixels((1, 28, 28))}
        >>> methods = counterfactual_methods(factories, torch.nn.Flatten(), pixels, confidences=[0.5, 0.99])
        >>> [method.name for method in methods]
        ['ours', 'ours', 'REVISE', 'REVISE']
    """
    methods = []
    for name, factory in factories.items():
        for generator_name, generator in generators.items():
            explain = partial(_searched, factory(model, generator), arguments)
            methods += [Method(name, explain, generator_name, confidence) for confidence in confidences]
    return methods


def _searched(method: CounterfactualAttribution, arguments: Mapping[str, Any], images: Tensor, goal: Goal) -> Outcome:
    return method.counterfactual(images, goal=goal, **arguments)


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


def _check_metrics(metrics: Any) -> None:
    for name, metric in metrics.items():
        if not isinstance(name, str):
            raise TypeError(f"names of metrics must be strings, received {name!r}")
        if not callable(metric):
            raise TypeError(f"the metric {name!r} must be callable, received {type(metric).__name__}")
    taken = sorted({*COLUMNS, ERROR} & set(metrics))
    if taken:
        raise ValueError(f"a metric cannot be called {', '.join(taken)}: the table has such a column already")


def _check_goal(goal_of: Any) -> None:
    if not callable(goal_of):
        raise TypeError(f"goal must be a function of labels, such as reach(9), received {goal_of!r}")
    goal = goal_of(_NO_LABEL)
    if not isinstance(goal, Goal):
        raise TypeError(f"goal must give a captum_dcf Goal, received {type(goal).__name__}")


def _goal_as_text(goal_of: GoalOf) -> str:
    goal = goal_of(_NO_LABEL)
    # The default text has an address in memory, which is another in the next run.
    return type(goal).__name__ if type(goal).__repr__ is object.__repr__ else repr(goal)
