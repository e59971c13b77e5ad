r"""A plan from a TOML file, a bundled one or a user's own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from captum_dcf.benchmark.binding import make_metric
from captum_dcf.benchmark.catalog import as_generator, make_methods
from captum_dcf.benchmark.comparison import Expectation
from captum_dcf.benchmark.goals import GOALS, GoalOf
from captum_dcf.benchmark.images import label_of, open_data
from captum_dcf.benchmark.plan import Plan
from captum_dcf.benchmark.processes import check_device, local_device
from captum_dcf.benchmark.setup import Setup
from captum_dcf.benchmark.weights import AsLogits, Weights
from captum_dcf.search import Goal, LeaveClass, ReachClass
from captum_dcf.search.model import OUTPUT_KINDS

__all__ = ["bundled", "make_plan", "read_plan", "read_table"]

REQUIRED = ("model", "generators", "goal", "data", "methods", "metrics")
OPTIONAL = ("title", "output", "confidences", "shard_size", "seed", "weights", "published", "published_are", "expected")
KNOWN = (*REQUIRED, *OPTIONAL)


def read_plan(
    name: str | Path,
    root: str | Path | None = None,
    images: int | None = None,
    confidences: Sequence[float] = (),
    device: str = "cpu",
) -> Plan:
    r"""The benchmark that a TOML file describes.

    Args:
        name: A bundled benchmark, one of :func:`bundled`, or the path of a TOML file.
        root: Folder of the data, for files that do not say it.
        images: Only so many of the images, from the first on.
        confidences: Λ, instead of those of the file.
        device: Where to run it.

    Raises:
        FileNotFoundError: There is no such file, or data or weights that it names are missing.
        ValueError: The file is no TOML, or says something unknown or too little.
    """
    table, folder = read_table(name)
    if confidences:
        table["confidences"] = list(confidences)
    return make_plan(table, folder, str(name), root, images, device)


def bundled() -> list[str]:
    r"""Names of the bundled benchmarks."""
    names = [path.name for path in files("captum_dcf.benchmark").joinpath("plans").iterdir()]
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def read_table(name: str | Path) -> tuple[dict[str, Any], Path]:
    r"""What a file says, and the folder that its paths are relative to.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no TOML.
    """
    path = Path(name)
    if str(name) in bundled():
        text = files("captum_dcf.benchmark").joinpath("plans").joinpath(f"{name}.toml").read_text(encoding="utf-8")
        return _parsed(text, str(name)), Path()
    if not path.is_file():
        raise FileNotFoundError(f"no benchmark {str(name)!r}: it is neither a file nor one of {bundled()}")
    try:
        return _parsed(path.read_text(encoding="utf-8"), str(name)), path.parent
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not TOML: it is not UTF-8 ({error})") from error


def make_plan(
    table: Mapping[str, Any],
    folder: Path,
    name: str,
    root: str | Path | None = None,
    images: int | None = None,
    device: str = "cpu",
) -> Plan:
    r"""The plan that a table describes.

    Args:
        table: What the file says.
        folder: What its paths are relative to.
        name: The file, for errors and where it has no title.
        root: As in :func:`read_plan`.
        images: As in :func:`read_plan`.
        device: As in :func:`read_plan`.

    Raises:
        FileNotFoundError: Data or weights are missing.
        ValueError: It says something unknown or too little.
    """
    said = {"title": Path(name).stem, "shard_size": 32, "seed": 0, **table}
    _check(said, name)
    where = local_device(device)
    check_device(where)
    weights = Weights(folder, folder / said["weights"] if "weights" in said else None, where)
    generators = {one: as_generator(one, weights.load(one, is_generator=True)) for one in said["generators"]}
    data = open_data(said["data"], folder, root, _image_shape(weights, said["generators"]))
    goal = _goal(said["goal"], name, data.class_names)

    @cache
    def references() -> tuple[Tensor, Tensor]:
        real, labels = data.references()
        return real.to(where), labels.to(where)

    setup = Setup(_explained(said, weights), generators, _confidences(said, goal, name), weights, references)
    count = len(data.images)  # type: ignore[arg-type]
    return Plan(
        images=data.images if images is None else Subset(data.images, range(min(images, count))),
        model=setup.model,
        goal=goal,
        methods=[
            method
            for label, kind, arguments in _entries(said, "methods", "method")
            for method in make_methods(setup, label, kind, arguments)
        ],
        metrics={
            label: make_metric(setup, label, kind, arguments)
            for label, kind, arguments in _entries(said, "metrics", "metric")
        },
        class_names={} if _are_numbers(data.class_names) else data.class_names,
        title=said["title"],
        published=said.get("published", {}),
        published_are=said.get("published_are", "means"),
        expected=[_expectation(one, name) for one in said.get("expected", [])],
        shard_size=said["shard_size"],
        seed=said["seed"],
        device=device,
        settings={
            "plan": {**said, "confidences": list(setup.confidences)},
            "data": data.text,
            "goal": ", ".join(f"{kind} {value}" for kind, value in said["goal"].items()),
            "files": data.fingerprint,
            "weights": weights.used,
        },
    )


def _parsed(text: str, name: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ModuleNotFoundError as error:
            raise ImportError('reading a benchmark needs tomli: pip install "captum_dcf[benchmark]"') from error
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{name} is not TOML: {error}") from error
    return table


def _check(said: Mapping[str, Any], name: str) -> None:
    unknown = sorted(set(said) - set(KNOWN))
    if unknown:
        raise ValueError(f"{name} says {', '.join(unknown)}; known are {', '.join(KNOWN)}")
    absent = [part for part in REQUIRED if not said.get(part)]
    if absent:
        raise ValueError(f"{name} does not say {', '.join(absent)}")
    generators = said["generators"]
    if not isinstance(generators, list) or not all(isinstance(one, str) for one in generators):
        raise ValueError(f"{name}: generators must be a list of names, received {generators!r}")
    if len(set(generators)) < len(generators):
        raise ValueError(f"{name}: generators must differ, received {generators!r}")
    if said.get("output", "logits") not in OUTPUT_KINDS:
        raise ValueError(f"{name}: output must be one of {', '.join(OUTPUT_KINDS)}, received {said['output']!r}")
    for part in ("title", "model", "weights"):
        if not isinstance(said.get(part, ""), str):
            raise ValueError(f"{name}: {part} must be a string, received {said[part]!r}")
    for part in ("goal", "data"):
        _check_table(f"{name}: {part}", said[part])
    for part, kind in (("methods", "method"), ("metrics", "metric"), ("published", "")):
        _check_table(f"{name}: {part}", said.get(part, {}))
        for label, entry in said.get(part, {}).items():
            _check_table(f"{name}: {part}.{label}", entry)
            if kind and not isinstance(entry.get(kind, label), str):
                raise ValueError(f"{name}: {part}.{label}: {kind} must be a name, received {entry[kind]!r}")
    if not isinstance(said.get("expected", []), list):
        raise ValueError(f"{name}: expected must be a list of tables, received {said['expected']!r}")


def _check_table(what: str, received: Any) -> None:
    if not isinstance(received, dict):
        raise ValueError(f"{what} must be a TOML table, received {received!r}")


def _goal(table: Mapping[str, Any], name: str, class_names: Mapping[int, str]) -> GoalOf:
    settings = {"tolerance": table["tolerance"]} if {"near", "tolerance"} <= set(table) else {}
    said = {kind: value for kind, value in table.items() if kind not in settings}
    if len(said) != 1 or not set(said) <= set(GOALS):
        raise ValueError(f"{name}: goal must be one of {', '.join(GOALS)} and its value, received {dict(table)}")
    [(kind, value)] = said.items()
    try:
        if kind == "reach" and isinstance(value, str):
            value = label_of(value, class_names)
        return GOALS[kind](value, **settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: goal.{kind}: {error}") from error


def _confidences(said: Mapping[str, Any], goal: GoalOf, name: str) -> Sequence[float | None]:
    of_class: bool = isinstance(_tried(goal), (ReachClass, LeaveClass))
    confidences = said.get("confidences", [0.99] if of_class else [None])
    if not isinstance(confidences, list) or not confidences:
        raise ValueError(f"{name}: confidences must be a list of at least one Λ, received {confidences!r}")
    if not of_class and confidences != [None]:
        raise ValueError(f"{name}: only classes are reached with a confidence, received confidences {confidences}")
    return confidences


def _tried(goal: GoalOf) -> Goal:
    return goal(torch.zeros(1, dtype=torch.int64))


def _explained(said: Mapping[str, Any], weights: Weights) -> nn.Module:
    model: nn.Module = weights.load(said["model"])
    kind = said.get("output", "logits")
    return model if kind == "logits" else AsLogits(model, kind)


def _image_shape(weights: Weights, generators: Sequence[str]) -> Sequence[int] | None:
    card = weights.card(generators[0])
    shape: Sequence[int] | None = card.arguments.get("image_shape") if card else None
    return shape


def _are_numbers(class_names: Mapping[int, str]) -> bool:
    """Whether names say no more than the labels do."""
    return all(name == str(label) for label, name in class_names.items())


def _expectation(one: Any, name: str) -> Expectation:
    known = [part.name for part in fields(Expectation)]
    if not isinstance(one, dict) or not {*known[:3]} <= set(one) <= {*known}:
        raise ValueError(f"{name}: expected must say {', '.join(known)}, received {one!r}")
    return Expectation(**one)


def _entries(said: Mapping[str, Any], part: str, kind: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Label, kind (the label where none is given) and arguments of each method or metric."""
    return [
        (label, entry.get(kind, label), {name: value for name, value in entry.items() if name != kind})
        for label, entry in said[part].items()
    ]
