from __future__ import annotations

import math
import sys
import warnings

import numpy as np
import pytest
from scipy import stats

from captum_dcf.benchmark.summary import bootstrap_interval, statistics, summarize

VALUES = np.random.default_rng(4).gamma(2.0, 3.0, 80)


def row(method, error=None, **others):
    empty = dict.fromkeys(("generator", "confidence", "found", "steps", "seconds", "memory_mib"))
    return {**empty, "method": method, "error": error, **others}


def test_median_mean_and_deviation():
    figures = statistics([*VALUES, float("nan")])
    assert figures.count == 80
    assert figures.median == np.median(VALUES)
    assert figures.mean == pytest.approx(VALUES.mean())
    assert figures.deviation == pytest.approx(stats.tstd(VALUES))
    assert not figures.is_share


@pytest.mark.parametrize(("name", "function"), [("mean", np.mean), ("median", np.median)])
def test_bootstrap_intervals_are_those_of_scipy(name, function):
    expected = stats.bootstrap(
        (VALUES,), function, n_resamples=2000, method="percentile", confidence_level=0.95, rng=np.random.default_rng(1)
    ).confidence_interval
    width = expected.high - expected.low
    assert bootstrap_interval(VALUES, name) == pytest.approx((expected.low, expected.high), abs=0.12 * width)
    assert bootstrap_interval(VALUES, name) == bootstrap_interval(VALUES, name)


def test_the_interval_of_the_median_is_that_of_the_median():
    figures = statistics(VALUES)
    assert (figures.median_low, figures.median_high) == bootstrap_interval(VALUES, "median")
    assert (figures.mean_low, figures.mean_high) == bootstrap_interval(VALUES, "mean")
    assert figures.median_high < figures.mean_high


def test_the_interval_hardly_depends_on_how_many_resamples_are_held_at_once(monkeypatch):
    low, high = bootstrap_interval(VALUES)
    monkeypatch.setattr("captum_dcf.benchmark.summary.VALUES_AT_ONCE", 1000)
    assert bootstrap_interval(VALUES) == pytest.approx((low, high), abs=0.12 * (high - low))


def test_constant_values_have_an_interval_of_no_width():
    assert bootstrap_interval(np.full(5, 2.0)) == (2.0, 2.0)


def test_infinite_values_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = statistics([1.0, math.inf, 2.0, 3.0])
    assert (figures.count, figures.median, figures.mean) == (4, 2.5, math.inf)
    assert math.isnan(figures.deviation)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pandas.*captum_dcf\[benchmark\]"):
        summarize([], [])


def test_few_values():
    alone = statistics([3.0])
    assert (alone.count, alone.median, alone.mean) == (1, 3.0, 3.0)
    # One value says nothing of how others would lie.
    assert all(map(math.isnan, (alone.median_low, alone.median_high, alone.mean_low, alone.mean_high, alone.deviation)))
    nothing = statistics([float("nan")])
    assert nothing.count == 0
    assert math.isnan(nothing.mean)
    assert statistics([0.0, 1.0, 1.0]).is_share


def test_a_summary_counts_found_errors_time_and_memory():
    rows = [
        row("a", found=True, seconds=0.5, memory_mib=10.0, l2=1.0),
        row("a", found=True, seconds=0.5, memory_mib=30.0, l2=3.0),
        row("a", found=False, seconds=1.0, memory_mib=20.0, l2=8.0),
        row("a", error="the image cannot be read", l2=7.0),
        row("b", seconds=0.1, l2=None),
        row("a", confidence=0.5, found=False, seconds=2.0, l2=4.0),
    ]
    first, second, third = summarize(rows, ["l2"])
    assert (first.method, first.total, first.errors, first.found) == ("a", 4, 1, 2)
    assert first.images_per_second == pytest.approx(1.5)
    assert first.memory_mib == 30.0
    assert (first.all["l2"].median, first.of_found["l2"].median) == (5.0, 2.0)
    assert (second.method, second.found, second.of_found) == ("b", None, {})
    assert (third.confidence, third.found, third.of_found["l2"].count) == (0.5, 0, 0)
    # Who has no answer is not among those that were found.
    assert first.of_found["l2"].count == 2
    assert {record["over"] for record in first.records()} == {"all", "found"}
