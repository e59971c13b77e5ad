r"""What is said of each image that was explained: as a line, as a row of a CSV file, and in a report."""

from __future__ import annotations

import csv
import io
import os
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from urllib.parse import quote

from captum_dcf.search import Status

__all__ = ["Row", "as_csv", "as_markdown", "line", "printable", "summary"]

# A decode that reaches beyond the range by less than this share of it is no news.
OVERSHOOT = 0.05


@dataclass(frozen=True)
class Row:
    r"""One image and its counterfactual.

    Attributes:
        file: The image.
        counterfactual: The file of x'.
        status: How the search ended, by name.
        reached: Whether x' reaches the goal, at the size of the generator.
        steps: Of the search.
        seen_as: What the model sees in the image, empty for values.
        start: The probability, or the value, of the image at the generator's size.
        end: That of x'.
        full_start: That of the image at its own size; None where it is the generator's.
        full_end: That of x' at that size.
        full_reached: Whether x' reaches the goal at that size.
        start_log_prob: log q of the image, in nats; None without a density.
        end_log_prob: That of x'.
        start_percentile: Share of training images that are less plausible than the image, in per cent; None where the
            generator does not know them.
        end_percentile: That of x'.
        overshoot: How far the decode of x' reached beyond the range before it was clamped, as a share of it.
    """

    file: str
    counterfactual: str
    status: str
    reached: bool
    steps: int
    seen_as: str
    start: float
    end: float
    full_start: float | None = None
    full_end: float | None = None
    full_reached: bool | None = None
    start_log_prob: float | None = None
    end_log_prob: float | None = None
    start_percentile: float | None = None
    end_percentile: float | None = None
    overshoot: float | None = None


def line(row: Row, score: str) -> str:
    r"""One line of text; ``score`` is what the numbers are, such as "P(blond)" or "nuclei"."""
    parts = [
        f"seen as {row.seen_as}" if row.seen_as else "",
        f"{row.status} after {row.steps} steps",
        _change(score, row.start, row.end),
        ""
        if row.full_start is None or row.full_end is None
        else f"at full size {_numbers(score, row.full_start, row.full_end)}",
        _plausibility(row),
        _overshoot(row),
    ]
    return f"{printable(row.file)}: {', '.join(filter(None, parts))}"


def summary(rows: Sequence[Row]) -> str:
    r"""One line for all: how many were found, and medians."""
    counts = Counter(row.status for row in rows)
    known = [row.end_percentile for row in rows if row.end_percentile is not None and row.reached]
    found = [row for row in rows if row.status == Status.FOUND.name]
    parts = [f"{len(found)} of {len(rows)} found"]
    parts += [f"{count} {status}" for status, count in counts.most_common() if status != Status.FOUND.name]
    lost = sum(row.full_reached is False for row in found)
    if lost:
        parts.append(f"{lost} of them not at full size")
    if found:
        parts.append(f"median {statistics.median(row.steps for row in found):.0f} steps")
    if known:
        parts.append(f"median percentile of x' {statistics.median(known):.0f}")
    return ", ".join(parts)


def as_csv(rows: Sequence[Row]) -> str:
    r"""A table with one row per image, in the order of the result; empty cells where nothing is known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Row.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    # Bytes of a file name that are no UTF-8 cannot be written to a file that is.
    writer.writerows(
        {**asdict(row), "file": _utf8(row.file), "counterfactual": _utf8(row.counterfactual)} for row in rows
    )
    return text.getvalue()


def as_markdown(rows: Sequence[Row], score: str, notes: Sequence[str], picture: str) -> str:
    r"""A page with what was asked, the picture, and a table with one row per image."""
    heads = ["image", "seen as", "status", "steps", score, "at full size", "plausibility", "beyond the range", "x'"]
    columns = [
        [printable(row.file) for row in rows],
        [row.seen_as for row in rows],
        [row.status for row in rows],
        [str(row.steps) for row in rows],
        [_numbers(score, row.start, row.end) for row in rows],
        [
            "" if row.full_start is None or row.full_end is None else _numbers(score, row.full_start, row.full_end)
            for row in rows
        ],
        [_plausibility(row) for row in rows],
        ["" if row.overshoot is None else f"{row.overshoot:.2f}" for row in rows],
    ]
    columns = [list(map(_cell, column)) for column in columns]
    columns.append([f"[{_cell(printable(row.counterfactual))}]({quote(_utf8(row.counterfactual))})" for row in rows])
    # A column that says nothing is left out.
    shown = [(_cell(head), column) for head, column in zip(heads, columns) if any(column)]
    table = [
        _table_line([head for head, _ in shown]),
        _table_line(["---"] * len(shown)),
        *(_table_line(list(cells)) for cells in zip(*(column for _, column in shown))),
    ]
    head = ["# Counterfactuals", "", summary(rows), "", *(f"- {_cell(note)}" for note in notes), ""]
    return "\n".join([*head, f"![x, its reconstruction, x' and x' - x]({quote(picture)})", "", *table, ""])


def printable(name: str) -> str:
    r"""A file name as one line of text: bytes that are no UTF-8 and control characters are replaced."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in _utf8(name))


def _utf8(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")


def _is_probability(score: str) -> bool:
    return score.startswith("P(")


def _change(score: str, start: float, end: float) -> str:
    numbers = _numbers(score, start, end)
    return f"{score} {numbers}" if _is_probability(score) else f"{numbers} {score}"


def _numbers(score: str, start: float, end: float) -> str:
    form = ".3f" if _is_probability(score) else ".4g"
    return f"{start:{form}} -> {end:{form}}"


def _plausibility(row: Row) -> str:
    if row.start_percentile is not None and row.end_percentile is not None:
        of = "log q percentile" if row.start_log_prob is not None else "latent percentile"
        return f"{of} {row.start_percentile:.0f} -> {row.end_percentile:.0f}"
    if row.start_log_prob is not None and row.end_log_prob is not None:
        return f"log q {_nats(row.start_log_prob)} -> {_nats(row.end_log_prob)}"
    return ""


def _overshoot(row: Row) -> str:
    # Written so that NaN is said, too.
    return (
        "" if row.overshoot is None or row.overshoot <= OVERSHOOT else f"decoded {row.overshoot:.2f} beyond the range"
    )


def _nats(value: float) -> str:
    return f"{value:.0f}" if abs(value) < 1e6 else f"{value:.2g}"


def _cell(text: str) -> str:
    """Text as it is in a table of Markdown."""
    for mark in ("\\", "|", "*", "_", "`", "[", "]", "<", "$", "#"):
        text = text.replace(mark, f"\\{mark}")
    return text


def _table_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
