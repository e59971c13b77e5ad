r"""What the commands ``demo`` and ``explain`` do: search, a table, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.utils.data import Subset

from captum_dcf import zoo
from captum_dcf.attr import DiffeomorphicCounterfactual
from captum_dcf.benchmark import Case, Method, Plan, read_plan
from captum_dcf.benchmark.rows import Row, shard_rows
from captum_dcf.benchmark.tables import Table
from captum_dcf.data.files import read_images, write_image
from captum_dcf.data.sources import labels_of
from captum_dcf.generators import Generator, NormalizingFlowGenerator
from captum_dcf.models.classifier import ConvClassifier, ResidualClassifier
from captum_dcf.search import Counterfactual
from captum_dcf.visualization import counterfactual_figure

__all__ = ["explain_files", "run_demo"]

SHOWN = 4


def run_demo(out: Path, per_class: int = 100) -> str:
    r"""Fours and sevens that become nines, in pixels and latents: writes a table and a picture, returns the table.

    Args:
        out: Folder for ``table.md`` and ``counterfactuals.png``.
        per_class: How many of the bundled hundred of each.
    """
    plan = read_plan("demo")
    labels = labels_of(plan.images).tolist()
    classes = sorted(set(labels))
    chosen = [row for label in classes for row in _places(labels, label)[:per_class]]
    plan = replace(plan, images=Subset(plan.images, chosen))
    outcomes: dict[str, list[Counterfactual]] = {method.name: [] for method in plan.methods}

    def keep(method: Method, numbers: list[int], case: Case) -> None:
        if isinstance(case.outcome, Counterfactual):
            outcomes[method.name].append(case.outcome)

    rows = [row for shard, numbers in plan.shards().items() for row in shard_rows(plan, shard, numbers, keep)]
    text = _table(plan, rows).markdown()
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    shown = [place for number in range(len(classes)) for place in range(number * per_class, (number + 1) * per_class)]
    shown = [place for place in shown if place % per_class < SHOWN]
    results = {name: parts[0] for name, parts in outcomes.items()}
    titles = [f"{rows[place]['label']} → {rows[place]['target']}" for place in shown]
    counterfactual_figure(results, shown, titles).savefig(out / "counterfactuals.png", dpi=150)
    return text


def _table(plan: Plan, rows: Sequence[Row]) -> Table:
    """Means over all examples, whether found or not."""
    header = ["search", "found", "steps", "confidence", *plan.metrics, "time"]
    lines = []
    for method in plan.methods:
        own = [row for row in rows if row["method"] == method.name]
        means = {name: fmean(row[name] for row in own) for name in ("steps", "end_score", *plan.metrics)}
        lines.append(
            [
                method.name,
                f"{sum(row['found'] for row in own)}/{len(own)}",
                f"{means['steps']:.1f}",
                f"{means['end_score']:.3f}",
                *(f"{means[name]:.0f}" if abs(means[name]) >= 100 else f"{means[name]:.2f}" for name in plan.metrics),
                f"{sum(row['seconds'] for row in own):.1f} s",
            ]
        )
    return Table("", header, lines)


def _places(labels: Sequence[int], label: int) -> list[int]:
    return [place for place, one in enumerate(labels) if one == label]


def explain_files(paths: Sequence[Path], target: int, out: Path, model: str, generator_name: str) -> str:
    r"""Counterfactuals of a user's own image files: writes x' of each, a picture and the result; returns a table."""
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"each image needs another file name, since its x' is written under it; received {names}")
    generator, classifier = zoo.load(generator_name), zoo.load(model)
    if not isinstance(generator, Generator):
        raise ValueError(f"{generator_name!r} is no generator; generators of the zoo are {_generators()}")
    if not isinstance(classifier, (ConvClassifier, ResidualClassifier)):
        raise ValueError(f"{model!r} is no classifier; one of the zoo is 'mnist-cnn'")
    image_shape = zoo.read_card(generator_name).arguments["image_shape"]
    images = read_images(paths, image_shape)
    result = DiffeomorphicCounterfactual(classifier, generator).counterfactual(images, target)
    out.mkdir(parents=True, exist_ok=True)
    result.save(out / "counterfactuals.safetensors")
    for path, image in zip(paths, result.counterfactuals):
        write_image(image, out / f"{path.stem}-to-{target}.png")
    figure = counterfactual_figure(result, range(len(paths)), [path.name for path in paths])
    figure.savefig(out / "counterfactuals.png", dpi=150)
    with torch.no_grad():
        sure, seen = classifier(images).softmax(1).max(1)
    likely = _likelihoods(generator, images, result.counterfactuals)
    return "\n".join(
        f"{path}: seen as {seen[row]} ({sure[row]:.3f}), {status.name} after {result.steps[row]} steps, "
        f"P({target}) {result.start_scores[row]:.3f} -> {result.end_scores[row]:.3f}{likely[row]}"
        for row, (path, status) in enumerate(zip(paths, result.statuses()))
    )


@torch.no_grad()
def _likelihoods(generator: Generator, images: Tensor, counterfactuals: Tensor) -> list[str]:
    """What a flow says of each image and its counterfactual; other generators have no density."""
    if not isinstance(generator, NormalizingFlowGenerator):
        return [""] * len(images)
    pairs = zip(generator.log_prob(images).tolist(), generator.log_prob(counterfactuals).tolist())
    return [f", log p {before:.0f} -> {after:.0f}" for before, after in pairs]


def _generators() -> list[str]:
    return [name for name in zoo.names() if isinstance(zoo.load(name), Generator)]
