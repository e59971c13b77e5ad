r"""What is said of each image: a line, a row of a CSV file, a row of a report."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from captum_dcf.explain.report import Row, as_csv, as_markdown, line, summary

FOUND = Row("faces/a.png", "a-to-blond.png", "FOUND", True, 9, "not blond (0.980)", 0.02, 0.991)
KNOWN = replace(
    FOUND, start_log_prob=-120.4, end_log_prob=87.0, start_percentile=41.2, end_percentile=12.4, overshoot=0.2
)
FAILED = replace(FOUND, file="b.png", status="STEP_LIMIT", reached=False, steps=500, end=0.4)


def test_a_line_says_what_is_known():
    assert line(FOUND, "P(blond)") == (
        "faces/a.png: seen as not blond (0.980), FOUND after 9 steps, P(blond) 0.020 -> 0.991"
    )
    said = line(replace(KNOWN, full_start=0.03, full_end=0.97), "P(blond)")
    assert "at full size 0.030 -> 0.970" in said
    assert "log q percentile 41 -> 12" in said
    assert "0.20 beyond the range" in said
    assert line(replace(FOUND, seen_as="", start=4.5, end=12.0), "nuclei").endswith("4.5 -> 12 nuclei")


def test_without_percentiles_log_q_is_said_in_nats():
    bare = replace(KNOWN, start_percentile=None, end_percentile=None)
    assert "log q -120 -> 87" in line(bare, "P(9)")
    far = replace(bare, start_log_prob=-1.234e9, end_log_prob=float("nan"))
    assert "log q -1.2e+09 -> nan" in line(far, "P(9)")


def test_without_a_density_the_percentile_is_that_of_the_latent():
    said = line(replace(KNOWN, start_log_prob=None, end_log_prob=None), "P(9)")
    assert "latent percentile 41 -> 12" in said
    assert "log q" not in said


@pytest.mark.parametrize(("overshoot", "is_said"), [(0.05, False), (0.051, True), (float("nan"), True), (None, False)])
def test_how_far_beyond_the_range_is_said_where_it_counts(overshoot: float | None, is_said: bool):
    assert ("beyond the range" in line(replace(KNOWN, overshoot=overshoot), "P(9)")) == is_said


def test_the_summary():
    assert summary([KNOWN, replace(KNOWN, steps=11), FAILED]) == (
        "2 of 3 found, 1 STEP_LIMIT, median 10 steps, median percentile of x' 12"
    )
    assert summary([FAILED]) == "0 of 1 found, 1 STEP_LIMIT"
    # Of those that were found, not of those that were not.
    rows = [replace(KNOWN, full_reached=True), replace(KNOWN, full_reached=False), replace(FAILED, full_reached=False)]
    assert "2 of 3 found, 1 STEP_LIMIT, 1 of them not at full size" in summary(rows)


def test_the_table_holds_the_numbers_as_they_are():
    rows = [KNOWN, replace(FAILED, file='with, "comma\n.png'), replace(FOUND, file="\udce4.png")]
    read = list(csv.DictReader(io.StringIO(as_csv(rows), newline="")))
    assert [row["file"] for row in read] == ["faces/a.png", 'with, "comma\n.png', "\N{REPLACEMENT CHARACTER}.png"]
    assert float(read[0]["end"]) == KNOWN.end
    assert float(read[0]["start_log_prob"]) == KNOWN.start_log_prob
    assert read[1]["start_log_prob"] == ""
    as_csv(rows).encode("utf-8")


def test_the_report_has_a_row_an_image_and_leaves_out_what_is_not_known():
    odd = replace(FAILED, file="a|b_c*.png", counterfactual="x y(1).png")
    page = as_markdown([FOUND, odd], "P(blond)", ["a note on my_file|x"], "counterfactuals.png")
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 2
    bars = [line.replace("\\|", "").count("|") for line in lines]
    assert len(set(bars)) == 1
    assert "plausibility" not in page
    assert "at full size" not in page
    assert "(x%20y%281%29.png)" in page
    assert "my\\_file\\|x" in page
    assert "plausibility" in as_markdown([KNOWN], "P(blond)", [], "counterfactuals.png")
