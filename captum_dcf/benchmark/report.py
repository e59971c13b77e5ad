r"""The tables of a finished run as files: CSV and Parquet to go on with, Markdown and HTML to read."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

from captum_dcf.benchmark.plan import COLUMNS, ERROR
from captum_dcf.benchmark.shards import ShardFolder, whole_file, write_whole
from captum_dcf.benchmark.summary import MethodSummary, Statistics, summarize

__all__ = ["write_report"]

NOTHING = "–"
ERRORS_SHOWN = 20
LEGEND = (
    "Λ: the confidence asked for. found: images whose counterfactual reaches it, of all images. images/s: of one "
    "process, searching only. peak MiB: the most memory of the process. Each further column is a measure of "
    f"captum_dcf.metrics, which says its direction. {NOTHING}: does not apply."
)


@dataclass(frozen=True)
class Table:
    r"""A table of text.

    Attributes:
        title: What it shows.
        header: Names of the columns.
        rows: The cells.
    """

    title: str
    header: list[str]
    rows: list[list[str]]


def write_report(folder: ShardFolder, columns: Sequence[str], shards: Collection[int]) -> None:
    r"""Writes ``table.csv``, ``summary.csv``, ``report.md`` and ``report.html``; ``table.parquet`` where pyarrow is."""
    measures = [name for name in columns if name not in (*COLUMNS, ERROR)]
    _write_table(folder, columns, shards)
    summaries = summarize(folder.rows(shards), measures)
    write_whole(folder.path / "summary.csv", _csv([record for one in summaries for record in one.records()]))
    settings = folder.settings()
    tables = _tables(summaries, measures)
    errors = _errors(folder.rows(shards))
    write_whole(folder.path / "report.md", _markdown(settings, tables, errors))
    write_whole(folder.path / "report.html", _html(settings, tables, errors))


def _write_table(folder: ShardFolder, columns: Sequence[str], shards: Collection[int]) -> None:
    path = folder.path / "table.csv"
    # Row by row: a table may be longer than memory.
    with whole_file(path) as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(folder.rows(shards))
    if find_spec("pyarrow") is not None:
        from pyarrow import csv as arrow_csv
        from pyarrow import parquet

        unfinished = path.with_suffix(".parquet.tmp")
        parquet.write_table(arrow_csv.read_csv(path), unfinished)
        unfinished.replace(path.with_suffix(".parquet"))


def _csv(records: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _tables(summaries: Sequence[MethodSummary], measures: Sequence[str]) -> list[Table]:
    columns = ["steps", *measures]
    # A distance is 0 everywhere where all there is are the originals; a share has its ones somewhere.
    shares = {
        name
        for name in measures
        if all(one.all[name].is_share for one in summaries if one.all[name].count)
        and any(one.all[name].mean > 0 for one in summaries if one.all[name].count)
    }
    some_failed = any(one.found not in (None, one.total) and one.found for one in summaries)
    tables = [
        _table("Medians (shares in %) and their 95 % intervals, all images", summaries, columns, shares),
        _table("Means ± deviations, all images", summaries, columns),
    ]
    if some_failed:
        title = "Medians (shares in %) and their 95 % intervals, only images whose counterfactual was found"
        tables.append(_table(title, [one for one in summaries if one.found], columns, shares, of_found=True))
    return tables


def _table(
    title: str,
    summaries: Sequence[MethodSummary],
    columns: Sequence[str],
    shares: Collection[str] | None = None,
    of_found: bool = False,
) -> Table:
    """A row per method; of medians, where the names of the shares are given, else of means."""
    header = ["method", "generator", "Λ", "found", "images/s", "peak MiB", *columns]
    rows = []
    for one in summaries:
        values = one.of_found if of_found else one.all
        rows.append(
            [
                one.method,
                one.generator or NOTHING,
                NOTHING if one.confidence is None else f"{one.confidence:g}",
                NOTHING if one.found is None else f"{one.found}/{one.total}",
                _number(one.images_per_second),
                NOTHING if one.memory_mib is None else f"{one.memory_mib:.0f}",
                *(_mean(values[name]) if shares is None else _median(values[name], name in shares) for name in columns),
            ]
        )
    return Table(title, header, rows)


def _median(values: Statistics, is_share: bool) -> str:
    if not values.count:
        return NOTHING
    if is_share:
        return f"{100 * values.mean:.1f} % [{100 * values.mean_low:.1f}, {100 * values.mean_high:.1f}]"
    return f"{_number(values.median)} [{_number(values.median_low)}, {_number(values.median_high)}]"


def _mean(values: Statistics) -> str:
    return f"{_number(values.mean)} ± {_number(values.deviation)}" if values.count else NOTHING


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


def _facts(settings: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {number}" for name, number in settings["versions"].items())
    data = settings["settings"].get("data")
    images = f"{settings['images']} images" + (f" of {data}" if data else "")
    return [f"{images}, target {settings['target']}, seed {settings['seed']}, {versions}"]


def _markdown(settings: dict[str, Any], tables: Sequence[Table], errors: Sequence[str]) -> str:
    parts = [f"# {settings['title']}", *_facts(settings), LEGEND]
    for table in tables:
        lines = [table.header, ["---"] * len(table.header), *table.rows]
        text = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        parts += [f"## {table.title}", text]
    if errors:
        parts += ["## Errors", "\n".join(f"- {error}" for error in errors)]
    return "\n\n".join(parts) + "\n"


def _html(settings: dict[str, Any], tables: Sequence[Table], errors: Sequence[str]) -> str:
    from jinja2 import Environment

    template = files("captum_dcf.benchmark").joinpath("report.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    facts = [*_facts(settings), LEGEND]
    return page.render(title=settings["title"], facts=facts, tables=tables, errors=errors) + "\n"
