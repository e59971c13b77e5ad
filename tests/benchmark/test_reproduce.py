r"""The paper's tables: what is set beside what, and that an order that came out otherwise is said."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from captum_dcf.benchmark.paper import (
    DEFAULT,
    EXPECTED,
    IM1,
    ORIGINALS,
    PAPER,
    PIXELS,
    Expectation,
    Figure,
    write_tables,
)
from captum_dcf.benchmark.reproduce import reproduce_mnist
from captum_dcf.benchmark.summary import statistics


def _figures(im1: dict[str, list[float]]) -> list[Figure]:
    """All measures that an order is expected of, those of IM1 as given, the others in order."""
    ranked = {ORIGINALS: 0.0, PIXELS: 1.0, DEFAULT: 2.0, PAPER: 2.0}
    figures = [Figure(IM1, method, statistics(values), "") for method, values in im1.items()]
    for measure in dict.fromkeys(one.measure for one in EXPECTED if one.measure != IM1):
        figures += [Figure(measure, method, statistics([rank, rank]), "") for method, rank in ranked.items()]
    return figures


def _verdicts(text: str) -> dict[str, str]:
    rows = [line.strip("| ").split(" | ") for line in text.split("expected one")[1].splitlines() if ":" in line]
    return {expected: verdict for expected, _, verdict in rows}


def test_an_order_that_came_out_otherwise_is_said(tmp_path: Path):
    values = {ORIGINALS: [2.0, 3.0], PIXELS: [0.5, 0.7], PAPER: [1.0, 1.2], DEFAULT: [0.4, 0.6]}
    verdicts = _verdicts(write_tables(_figures(values), "digits", tmp_path, "digits"))
    assert verdicts[f"IM1: {ORIGINALS} > {PIXELS}"] == "yes"
    assert verdicts[f"IM1: {PIXELS} > {PAPER}"] == "**no**"
    assert verdicts[f"IM1: {PIXELS} > {DEFAULT}"] == "yes"
    assert len(verdicts) == len(EXPECTED)


@pytest.mark.parametrize(("may_be_equal", "holds"), [(True, True), (False, False)])
def test_a_tie_is_in_order_only_where_it_may_be(may_be_equal: bool, holds: bool):
    assert Expectation("measure", "one", "other", may_be_equal).holds(0.5, 0.5) is holds


def test_a_method_that_found_nothing_is_said(tmp_path: Path):
    figures = [
        figure for figure in _figures({ORIGINALS: [2.0], PAPER: [1.0], DEFAULT: [1.0]}) if figure.method != PIXELS
    ]
    verdicts = _verdicts(write_tables(figures, "digits", tmp_path, "digits"))
    assert verdicts[f"IM1: {ORIGINALS} > {PIXELS}"] == "nothing was found"
    assert verdicts[f"L2 in Z to source: {PAPER} > {DEFAULT}"] == "**no**"


def test_a_class_is_not_its_own_counterfactual(tmp_path: Path):
    with pytest.raises(ValueError, match="two classes, received 4 twice"):
        reproduce_mnist(tmp_path, source=4, target=4)


def test_medians_stand_beside_means_and_published_figures_below(tmp_path: Path):
    figures = _figures({method: [1.0, 2.0, 90.0] for method in (ORIGINALS, PIXELS, PAPER, DEFAULT)})
    figures[0] = Figure(IM1, ORIGINALS, figures[0].values, "2.250 ± 0.711")
    text = write_tables(figures, "digits", tmp_path, "digits")
    means, medians = text.split("## Medians")
    assert "| IM1 | 31.000 ± 51.098" in means
    assert "| IM1 | 2.000 [1.000, 90.000]" in medians
    assert means.count("| published mean | 2.250 ± 0.711 |") == 1
    with (tmp_path / "digits.csv").open(encoding="utf-8") as file:
        first = next(csv.DictReader(file))
    assert (first["measure"], first["method"], float(first["median"])) == (IM1, ORIGINALS, 2.0)
    assert (tmp_path / "digits.md").read_text(encoding="utf-8") == text + "\n"


def test_the_tables_of_a_few_digits(tmp_path: Path):
    said: list[str] = []
    text = reproduce_mnist(tmp_path, limit=2, say=said.append)
    assert "4 → 9, 2 test images" in text
    assert "41.86 ± 2.00" in text
    assert [line.rpartition(": ")[2] for line in said[1:]] == [PIXELS, PAPER, DEFAULT]
    with (tmp_path / "mnist-4-to-9.csv").open(encoding="utf-8") as file:
        rows = {(row["measure"], row["method"]): row for row in csv.DictReader(file)}
    assert float(rows["found", DEFAULT]["mean"]) == 1
    assert float(rows["L2 in Z to source", PIXELS]["mean"]) > 3 * float(rows["L2 in Z to source", DEFAULT]["mean"])
    assert (tmp_path / "mnist-4-to-9.md").is_file()
