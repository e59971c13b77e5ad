r"""What the command ``demo`` does: the plan of that name, a table of means, and a picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from torch import Tensor
from torch.utils.data import Subset

from captum_dcf.benchmark import Case, Method, Plan, read_plan
from captum_dcf.benchmark.case import Explain, Outcome
from captum_dcf.benchmark.rows import Row, shard_rows
from captum_dcf.benchmark.tables import Table
from captum_dcf.data.sources import labels_of
from captum_dcf.outputs import new_files
from captum_dcf.search import Counterfactual, Goal
from captum_dcf.visualization import counterfactual_figure

__all__ = ["run_demo"]

SHOWN = 4
Say = Callable[[str], None]


def run_demo(out: Path, per_class: int = 100, say: Say = lambda line: None, overwrite: bool = False) -> str:
    r"""Fours and sevens that become nines, in pixels and latents: writes a table and a picture, returns the table.

    Args:
        out: Folder for ``table.md`` and ``counterfactuals.png``; made if there is none.
        per_class: How many of the bundled hundred of each.
        say: Called with a line when a search begins and when it ends.
        overwrite: Whether the table and the picture of an earlier call may be replaced.

    Raises:
        FileExistsError: There is a table or a picture in ``out`` already.
    """
    with new_files(out, ["table.md", "counterfactuals.png"], overwrite=overwrite) as folder:
        plan = read_plan("demo")
        labels = labels_of(plan.images).tolist()
        classes = sorted(set(labels))
        chosen = [row for label in classes for row in _places(labels, label)[:per_class]]
        methods = [replace(method, explain=_telling(method, say)) for method in plan.methods]
        plan = replace(plan, images=Subset(plan.images, chosen), methods=methods)
        outcomes: dict[str, list[Counterfactual]] = {method.name: [] for method in plan.methods}

        def keep(method: Method, numbers: list[int], case: Case) -> None:
            if isinstance(case.outcome, Counterfactual):
                outcomes[method.name].append(case.outcome)

        rows = [row for shard, numbers in plan.shards().items() for row in shard_rows(plan, shard, numbers, keep)]
        text = _table(plan, rows).markdown()
        (folder / "table.md").write_text(text + "\n", encoding="utf-8")
        places = [number * per_class + place for number in range(len(classes)) for place in range(per_class)]
        shown = [place for place in places if place % per_class < SHOWN]
        results = {name: parts[0] for name, parts in outcomes.items()}
        titles = [f"{rows[place]['label']} → {rows[place]['target']}" for place in shown]
        counterfactual_figure(results, shown, titles).savefig(folder / "counterfactuals.png", dpi=150)
    return text


def _telling(method: Method, say: Say) -> Explain:
    """The method, which says when it begins and how long it took."""

    def explain(images: Tensor, goal: Goal) -> Outcome:
        say(f"searching {len(images)} images {method.name}")
        started = time.monotonic()
        outcome = method.explain(images, goal)
        say(f"took {time.monotonic() - started:.1f} s")
        return outcome

    return explain


def _table(plan: Plan, rows: Sequence[Row]) -> Table:
    """Means over all examples that are not of the class already, whether found or not."""
    header = ["search", "found", "steps", "confidence", *plan.metrics, "time"]
    lines = []
    for method in plan.methods:
        own = [row for row in rows if row["method"] == method.name and not row["already_there"]]
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
