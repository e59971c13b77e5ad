r"""The tables of a finished run as files: CSV and Parquet to go on with, Markdown and HTML to read."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

from captum_dcf.benchmark.comparison import comparison_tables
from captum_dcf.benchmark.plan import ERROR, Plan
from captum_dcf.benchmark.shards import ShardFolder, whole_file, write_whole
from captum_dcf.benchmark.summary import MethodSummary, Statistics
from captum_dcf.benchmark.tables import Table, markdown_text, write_csv

__all__ = ["write_report"]

NOTHING = "–"
ERRORS_SHOWN = 20
ARROWS = {"higher": " ↑", "lower": " ↓"}
LEGEND = (
    "Λ: the confidence asked for. already there: images that reach the goal from the start; no other column counts "
    "them. found: images whose counterfactual reaches the goal, of all others. images/s: of one process, searching "
    "only. peak MiB: the most memory of the process. Each further column is a metric; ↑: higher is better, ↓: lower is "
    f"better. {NOTHING}: does not apply."
)


def write_report(folder: ShardFolder, plan: Plan, summaries: Sequence[MethodSummary]) -> None:
    r"""Writes ``table.csv``, ``summary.csv``, ``report.md`` and ``report.html``; ``table.parquet`` where pyarrow is.

    Args:
        folder: Where the shards are, and the files are to be.
        plan: What was run.
        summaries: Of each method.
    """
    shards = list(plan.shards())
    with whole_file(folder.path / "table.csv") as file:
        write_csv(file, plan.columns, folder.rows(shards))
    _write_parquet(folder, plan, shards)
    records = [record for one in summaries for record in one.records()]
    with whole_file(folder.path / "summary.csv") as file:
        write_csv(file, list(records[0]), records)
    tables = _tables(summaries, plan)
    if plan.published or plan.expected:
        tables += comparison_tables(summaries, plan.published, plan.expected, plan.published_are)
    facts, errors = [_facts(folder.settings()), LEGEND], _errors(folder.rows(shards))
    write_whole(folder.path / "report.md", _markdown(plan.title, facts, tables, errors))
    write_whole(folder.path / "report.html", _html(plan.title, facts, tables, errors))


def _write_parquet(folder: ShardFolder, plan: Plan, shards: Sequence[int]) -> None:
    if find_spec("pyarrow") is None:
        return
    import pyarrow
    from pyarrow import parquet

    # Of given types: a method may be called "001".
    integers, texts = ("image", "steps"), ("method", "generator", "status", ERROR)
    types = {name: pyarrow.float64() for name in plan.columns}
    types |= {**dict.fromkeys(integers, pyarrow.int64()), **dict.fromkeys(texts, pyarrow.string())}
    types |= dict.fromkeys(("already_there", "found"), pyarrow.bool_())
    types |= dict.fromkeys(plan.named_columns, pyarrow.string())
    schema = pyarrow.schema(list(types.items()))
    path = folder.path / "table.parquet"
    unfinished = path.with_name(path.name + ".tmp")
    with parquet.ParquetWriter(unfinished, schema) as writer:
        for number in shards:
            writer.write_table(pyarrow.Table.from_pylist(list(folder.rows([number])), schema))
    unfinished.replace(path)


def _tables(summaries: Sequence[MethodSummary], plan: Plan) -> list[Table]:
    columns = ["steps", *plan.metrics_of("example")]
    # A distance is 0 everywhere where all there is are the originals; a share has its ones somewhere.
    shares = {
        name
        for name in columns[1:]
        if all(one.all[name].is_share for one in summaries if one.all[name].count)
        and any(one.all[name].mean > 0 for one in summaries if one.all[name].count)
    }
    some_failed = any(one.found not in (None, one.sought) and one.found for one in summaries)
    tables = [
        _table("Medians (shares in %) and their 95 % intervals, all images", summaries, columns, plan, shares),
        _table("Means ± deviations, all images", summaries, columns, plan),
    ]
    if some_failed:
        title = "Medians (shares in %) and their 95 % intervals, only images whose counterfactual was found"
        found = [one for one in summaries if one.found]
        tables.append(_table(title, found, columns, plan, shares, of_found=True))
    return tables


def _table(
    title: str,
    summaries: Sequence[MethodSummary],
    columns: Sequence[str],
    plan: Plan,
    shares: Collection[str] | None = None,
    of_found: bool = False,
) -> Table:
    """A row per method; of medians, where the names of the shares are given, else of means."""
    directions = plan.directions()
    of_set = [] if of_found else list(plan.metrics_of("set"))
    names = [name + ARROWS.get(directions.get(name, ""), "") for name in (*columns, *of_set)]
    rows = []
    for one in summaries:
        values = one.of_found if of_found else one.all
        rows.append(
            [
                one.method,
                one.generator or NOTHING,
                NOTHING if one.confidence is None else f"{one.confidence:g}",
                NOTHING if one.already_there is None else str(one.already_there),
                NOTHING if one.found is None else f"{one.found}/{one.sought}",
                _number(one.images_per_second),
                NOTHING if one.memory_mib is None else f"{one.memory_mib:.0f}",
                *(_mean(values[name]) if shares is None else _median(values[name], name in shares) for name in columns),
                *(_number(one.of_set.get(name)) for name in of_set),
            ]
        )
    return Table(title, ["method", "generator", "Λ", "already there", "found", "images/s", "peak MiB", *names], rows)


def _median(values: Statistics, is_share: bool) -> str:
    if not values.count:
        return NOTHING
    if is_share:
        return f"{100 * values.mean:.1f} %{_interval(values.mean_low, values.mean_high, '{:.1f}', 100)}"
    return f"{_number(values.median)}{_interval(values.median_low, values.median_high)}"


def _interval(low: float, high: float, form: str | None = None, factor: float = 1) -> str:
    if math.isnan(low) or math.isnan(high):
        return ""
    ends = [form.format(factor * end) if form else _number(end) for end in (low, high)]
    return f" [{', '.join(ends)}]"


def _mean(values: Statistics) -> str:
    if not values.count:
        return NOTHING
    return _number(values.mean) + ("" if math.isnan(values.deviation) else f" ± {_number(values.deviation)}")


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return NOTHING
    # Three digits, but no exponent for numbers that are easily read.
    return f"{value:.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.3g}"


def _errors(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The first errors, each once, with the number of rows it befell."""
    counts: dict[str, int] = {}
    for row in rows:
        if row[ERROR] is not None:
            text = f"image {row['image']}: {row[ERROR]}"
            counts[text] = counts.get(text, 0) + 1
    lines = [f"{text} ({count} rows)" for text, count in counts.items()]
    more = len(lines) - ERRORS_SHOWN
    return [*lines[:ERRORS_SHOWN], f"and {more} more: see the column {ERROR!r} of table.csv"] if more > 0 else lines


def _facts(settings: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in settings["versions"].items())
    data = settings["settings"].get("data")
    images = f"{settings['images']} images" + (f" of {data}" if data else "")
    goal = settings["settings"].get("goal", settings["goal"])
    return f"{images}, goal {goal}, seed {settings['seed']}, {versions}"


def _markdown(title: str, facts: Sequence[str], tables: Sequence[Table], errors: Sequence[str]) -> str:
    parts = [f"# {markdown_text(title)}", *map(markdown_text, facts)]
    for table in tables:
        parts += [f"## {table.title}", table.markdown()]
    if errors:
        parts += ["## Errors", "\n".join(f"- {markdown_text(error)}" for error in errors)]
    return "\n\n".join(parts) + "\n"


def _html(title: str, facts: Sequence[str], tables: Sequence[Table], errors: Sequence[str]) -> str:
    from jinja2 import Environment

    template = files("captum_dcf.benchmark").joinpath("report.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    return page.render(title=title, facts=facts, tables=tables, errors=errors) + "\n"
