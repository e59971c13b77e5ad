from __future__ import annotations

import math

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


def test_the_interval_does_not_depend_on_how_many_resamples_are_held_at_once(monkeypatch):
    at_once = bootstrap_interval(VALUES)
    monkeypatch.setattr("captum_dcf.benchmark.summary.VALUES_AT_ONCE", 1000)
    assert bootstrap_interval(VALUES) == at_once


def test_few_values():
    alone = statistics([3.0])
    assert (alone.median, alone.median_low, alone.mean_high, alone.deviation) == (3.0, 3.0, 3.0, 0.0)
    nothing = statistics([float("nan")])
    assert nothing.count == 0
    assert math.isnan(nothing.mean)
    assert statistics([0.0, 1.0, 1.0]).is_share


def test_a_summary_counts_found_errors_time_and_memory():
    rows = [
        row("a", found=True, seconds=0.5, memory_mib=10.0, l2=1.0),
        row("a", found=True, seconds=0.5, memory_mib=30.0, l2=3.0),
        row("a", found=False, seconds=1.0, memory_mib=20.0, l2=8.0),
        row("a", error="the image cannot be read", l2=None),
        row("b", seconds=0.1, l2=None),
        row("a", confidence=0.5, found=False, seconds=2.0, l2=4.0),
    ]
    first, second, third = summarize(rows, ["l2"])
    assert (first.method, first.total, first.errors, first.found) == ("a", 4, 1, 2)
    assert first.images_per_second == pytest.approx(1.5)
    assert first.memory_mib == 30.0
    assert (first.all["l2"].median, first.of_found["l2"].median) == (3.0, 2.0)
    assert (second.method, second.found, second.of_found) == ("b", None, {})
    assert (third.confidence, third.found, third.of_found["l2"].count) == (0.5, 0, 0)
    assert {record["over"] for record in first.records()} == {"all", "found"}
