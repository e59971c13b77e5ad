r"""A run beside published figures: what is set beside what, and that an order that came out otherwise is said."""

from __future__ import annotations

import pytest

from captum_dcf.benchmark import Expectation, summarize
from captum_dcf.benchmark.comparison import comparison_records, comparison_tables

EXPECTED = [
    Expectation("IM1", "originals", "X"),
    Expectation("IM1", "X", "Z"),
    Expectation("IM1", "Z", "default", may_be_equal=True),
]
PUBLISHED = {"IM1": {"originals": "2.250 ± 0.711"}}


def summaries(im1, found=True):
    """Of methods that search, but for the originals, by what IM1 says of their images."""
    rows = []
    for method, values in im1.items():
        searches = method != "originals"
        for value in values:
            outcome = {"found": found and searches, "steps": 3 if searches else None}
            rows.append(
                {"method": method, "generator": "", "confidence": None, "error": None, "memory_mib": None, "IM1": value}
                | {"seconds": 0.1, **outcome}
            )
    return summarize(rows, ["IM1"])


def verdicts(tables):
    return {expected: verdict for expected, _, verdict in tables[2].rows}


def test_an_order_that_came_out_otherwise_is_said():
    found = summaries({"originals": [2.0, 3.0], "X": [0.5, 0.7], "Z": [1.0, 1.2], "default": [1.2, 1.0]})
    tables = comparison_tables(found, PUBLISHED, EXPECTED)
    assert verdicts(tables) == {"IM1: originals > X": "yes", "IM1: X > Z": "**no**", "IM1: Z ≥ default": "yes"}
    assert tables[2].rows[1][1] == "0.600, 1.100"


@pytest.mark.parametrize("may_be_equal", [True, False])
def test_a_tie_is_in_order_only_where_it_may_be(may_be_equal):
    assert Expectation("metric", "one", "other", may_be_equal).holds(0.5, 0.5) is may_be_equal


def test_a_method_that_found_nothing_is_said_and_originals_are_over_all():
    tables = comparison_tables(summaries({"originals": [2.0], "X": [1.0], "Z": [1.0]}, found=False), {}, EXPECTED)
    assert set(verdicts(tables).values()) == {"nothing was found"}
    means = {row[0]: row[1:] for row in tables[0].rows}
    assert means["found"] == ["", "0.000", "0.000"]
    assert means["IM1"] == ["2.000", "", ""]


def test_published_figures_stand_below_the_means_alone():
    found = summaries({"originals": [1.0, 2.0, 90.0], "X": [1.0, 2.0, 90.0]})
    means, medians, _ = comparison_tables(found, PUBLISHED, EXPECTED)
    rows = [row[:2] for row in means.rows]
    assert ["published", "2.250 ± 0.711"] in rows
    assert rows[rows.index(["published", "2.250 ± 0.711"]) - 1][1].startswith("31.000 ± 51.098 [")
    assert not any(row[0] == "published" for row in medians.rows)
    assert ["IM1", "2.000 [1.000, 90.000]"] in [row[:2] for row in medians.rows]


def test_published_medians_stand_below_the_medians_alone():
    found = summaries({"originals": [1.0, 2.0, 90.0], "X": [1.0, 2.0, 90.0]})
    means, medians, _ = comparison_tables(found, PUBLISHED, EXPECTED, "medians")
    assert not any(row[0] == "published" for row in means.rows)
    rows = [row[:2] for row in medians.rows]
    assert rows[rows.index(["published", "2.250 ± 0.711"]) - 1] == ["IM1", "2.000 [1.000, 90.000]"]


def test_without_expectations_there_is_no_table_of_them():
    assert len(comparison_tables(summaries({"X": [1.0]}), PUBLISHED, [])) == 2


def test_records_are_flat_rows():
    records = comparison_records(summaries({"originals": [1.0, 2.0, 90.0], "X": [5.0, 6.0]}), PUBLISHED)
    [first] = [one for one in records if (one["metric"], one["method"]) == ("IM1", "originals")]
    assert (first["median"], first["published"], first["count"]) == (2.0, "2.250 ± 0.711", 3)
    [steps] = [one for one in records if (one["metric"], one["method"]) == ("steps", "X")]
    assert (steps["mean"], steps["published"]) == (3.0, "")
