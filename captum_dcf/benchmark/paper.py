r"""The paper's figures for MNIST, the orders it leads one to expect, and tables that set measurements beside both.

Dombrowski et al., "Diffeomorphic Counterfactuals with Generative Models", IEEE TPAMI 46(5), 2024, section 4.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from captum_dcf.benchmark.summary import Statistics

__all__ = ["EXPECTED", "PUBLISHED", "Expectation", "Figure", "write_tables"]

ORIGINALS, PIXELS, PAPER, DEFAULT = "originals", "X", "Z, Adam 0.05", "Z, default"
IM1, IN_Z, NEIGHBORS = "IM1", "L2 in Z to source", "10 nearest neighbours of target"
SVM, NETWORK = "SVM says target", "second network says target"

# Mean and deviation, section 4 of the paper; it has them for 4 -> 9 alone.
PUBLISHED = {
    (IM1, ORIGINALS): "2.250 ± 0.711",
    (IM1, PIXELS): "1.603 ± 0.317",
    (IM1, PAPER): "1.056 ± 0.233",
    ("L2 in X to source", PIXELS): "2.54 ± 0.61",
    ("L2 in X to source", PAPER): "4.82 ± 1.20",
    ("L2 in X to source class", PIXELS): "8.77 ± 1.25",
    ("L2 in X to source class", PAPER): "9.27 ± 1.32",
    (IN_Z, PIXELS): "41.86 ± 2.00",
    (IN_Z, PAPER): "35.26 ± 4.68",
    ("L2 in Z to source class", PIXELS): "42.12 ± 0.74",
    ("L2 in Z to source class", PAPER): "39.91 ± 1.61",
}


@dataclass(frozen=True)
class Figure:
    r"""One measure of one method over the examples, and what the paper says of it, or an empty string."""

    measure: str
    method: str
    values: Statistics
    published: str


@dataclass(frozen=True)
class Expectation:
    r"""An order in which the paper's theory puts two methods by the mean of a measure."""

    measure: str
    greater: str
    smaller: str
    may_be_equal: bool

    def holds(self, greater: float, smaller: float) -> bool:
        r"""Whether it came out so, given the two means."""
        return greater >= smaller if self.may_be_equal else greater > smaller


EXPECTED = [
    Expectation(IM1, ORIGINALS, PIXELS, may_be_equal=False),
    Expectation(IM1, PIXELS, PAPER, may_be_equal=False),
    Expectation(IM1, PIXELS, DEFAULT, may_be_equal=False),
    *(Expectation(judge, DEFAULT, PAPER, may_be_equal=True) for judge in (SVM, NETWORK, NEIGHBORS)),
    *(Expectation(judge, PAPER, PIXELS, may_be_equal=False) for judge in (SVM, NETWORK, NEIGHBORS)),
    Expectation(IN_Z, PAPER, DEFAULT, may_be_equal=False),
]


def write_tables(figures: list[Figure], title: str, out: Path, name: str) -> str:
    r"""Writes ``NAME.md`` and ``NAME.csv`` into ``out`` and returns the Markdown.

    Args:
        figures: Every measure of every method.
        title: What was measured.
        out: Folder to write to; made if there is none.
        name: Of the files, without suffix.
    """
    text = _markdown(figures, title)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    _write_csv(figures, out / f"{name}.csv")
    return text


def _markdown(figures: list[Figure], title: str) -> str:
    parts = [
        f"# {title}",
        "Measures are of the counterfactuals that were found.",
        "## Means ± deviations [95 % bootstrap intervals of the mean]",
        _table(figures, _mean),
        "## Medians [95 % bootstrap intervals]; of shares, means",
        _table(figures, _median),
        "## Whether the order of the means is the expected one",
        _orders({(figure.measure, figure.method): figure.values.mean for figure in figures}),
    ]
    return "\n\n".join(parts)


def _table(figures: list[Figure], cell: Callable[[Statistics], str]) -> str:
    """A row per measure, and one more where the paper has a figure."""
    methods = list(dict.fromkeys(figure.method for figure in figures))
    by_place = {(figure.measure, figure.method): figure for figure in figures}
    rows = [["measure", *methods], ["---"] * (len(methods) + 1)]
    for measure in dict.fromkeys(figure.measure for figure in figures):
        row = [by_place.get((measure, method)) for method in methods]
        rows.append([measure, *(cell(figure.values) if figure else "" for figure in row)])
        published = [figure.published if figure else "" for figure in row]
        if any(published):
            rows.append(["published mean", *published])
    return _lines(rows)


def _mean(values: Statistics) -> str:
    return f"{values.mean:.3f} ± {values.deviation:.3f} [{values.mean_low:.3f}, {values.mean_high:.3f}]"


def _median(values: Statistics) -> str:
    if values.is_share:
        return f"{values.mean:.3f} [{values.mean_low:.3f}, {values.mean_high:.3f}]"
    return f"{values.median:.3f} [{values.median_low:.3f}, {values.median_high:.3f}]"


def _orders(means: dict[tuple[str, str], float]) -> str:
    rows = [["expected", "means", "came out so"], ["---"] * 3]
    for one in EXPECTED:
        sign = "≥" if one.may_be_equal else ">"
        greater, smaller = means.get((one.measure, one.greater)), means.get((one.measure, one.smaller))
        if greater is None or smaller is None:
            values, answer = "", "nothing was found"
        else:
            values, answer = f"{greater:.3f}, {smaller:.3f}", "yes" if one.holds(greater, smaller) else "**no**"
        rows.append([f"{one.measure}: {one.greater} {sign} {one.smaller}", values, answer])
    return _lines(rows)


def _lines(rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _write_csv(figures: list[Figure], path: Path) -> None:
    columns = ["measure", "method", *(field.name for field in fields(Statistics)), "published"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for figure in figures:
            one = {"measure": figure.measure, "method": figure.method, "published": figure.published}
            writer.writerow(one | asdict(figure.values))
