r"""A run beside published figures: means and medians by metric, and whether methods come in the expected order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from captum_dcf.benchmark.summary import MethodSummary, Statistics
from captum_dcf.benchmark.tables import Table

__all__ = ["Expectation", "PublishedAre", "comparison_records", "comparison_tables"]

Figures = dict[str, dict[str, Statistics]]
Published = Mapping[str, Mapping[str, str]]
PublishedAre = Literal["means", "medians"]


@dataclass(frozen=True)
class Expectation:
    r"""An order in which a theory puts two methods by the mean of a metric.

    Attributes:
        metric: Name of the metric.
        greater: The method of the greater mean.
        smaller: The method of the smaller mean.
        may_be_equal: Whether equal means are in order too.
    """

    metric: str
    greater: str
    smaller: str
    may_be_equal: bool = False

    def holds(self, greater: float, smaller: float) -> bool:
        r"""Whether it came out so, given the two means."""
        return greater >= smaller if self.may_be_equal else greater > smaller


def comparison_tables(
    summaries: Sequence[MethodSummary],
    published: Published,
    expected: Sequence[Expectation],
    published_are: PublishedAre = "means",
) -> list[Table]:
    r"""Means and medians, the published ones beside those that they are, and the expected orders.

    Metrics are of the counterfactuals that were found, and of all images where nothing is searched, such as originals.
    Images that reached the goal already count nowhere.
    """
    figures = _figures(summaries)
    methods = list(dict.fromkeys(one.method for one in summaries))
    means, medians = (published, {}) if published_are == "means" else ({}, published)
    tables = [
        _table("Means ± deviations [95 % intervals of the mean]", figures, methods, _mean, means),
        _table("Medians [95 % intervals]; of shares, means", figures, methods, _median, medians),
    ]
    return [*tables, _orders(figures, expected)] if expected else tables


def comparison_records(summaries: Sequence[MethodSummary], published: Published) -> list[dict[str, Any]]:
    r"""The same figures as one flat row per metric and method."""
    return [
        {"metric": metric, "method": method, **asdict(values), "published": published.get(metric, {}).get(method, "")}
        for metric, by_method in _figures(summaries).items()
        for method, values in by_method.items()
    ]


def _figures(summaries: Sequence[MethodSummary]) -> Figures:
    """By metric and method."""
    figures: Figures = {"found": {}}
    for one in summaries:
        # What takes no steps has not searched, and can have found nothing.
        searches = one.all["steps"].count > 0
        if searches and one.found is not None:
            figures["found"][one.method] = Statistics(one.sought, mean=one.found / one.sought)
            figures.setdefault("steps", {})[one.method] = one.all["steps"]
        for metric, values in (one.of_found if searches else one.all).items():
            if metric not in ("steps", "seconds"):
                figures.setdefault(metric, {})[one.method] = values
        for metric, value in one.of_set.items():
            figures.setdefault(metric, {})[one.method] = Statistics(one.total, median=value, mean=value)
    return figures


def _table(
    title: str, figures: Figures, methods: list[str], cell: Callable[[Statistics], str], published: Published
) -> Table:
    """A row per metric, and one more where there is a published figure."""
    rows = []
    for metric, by_method in figures.items():
        rows.append([metric, *(cell(by_method[one]) if one in by_method else "" for one in methods)])
        if metric in published:
            rows.append(["published", *(published[metric].get(one, "") for one in methods)])
    return Table(title, ["metric", *methods], rows)


def _mean(values: Statistics) -> str:
    if not values.count:
        return ""
    deviation = "" if values.deviation != values.deviation else f" ± {values.deviation:.3f}"
    return f"{values.mean:.3f}{deviation}{_interval(values.mean_low, values.mean_high)}"


def _median(values: Statistics) -> str:
    if values.is_share or values.median != values.median:
        return f"{values.mean:.3f}{_interval(values.mean_low, values.mean_high)}" if values.count else ""
    return f"{values.median:.3f}{_interval(values.median_low, values.median_high)}"


def _interval(low: float, high: float) -> str:
    return "" if low != low or high != high else f" [{low:.3f}, {high:.3f}]"


def _orders(figures: Figures, expected: Sequence[Expectation]) -> Table:
    rows = []
    for one in expected:
        sign = "≥" if one.may_be_equal else ">"
        by_method = figures.get(one.metric, {})
        means = [by_method[name].mean for name in (one.greater, one.smaller) if name in by_method]
        if len(means) < 2 or any(mean != mean for mean in means):
            values, answer = "", "nothing was found"
        else:
            values, answer = f"{means[0]:.3f}, {means[1]:.3f}", "yes" if one.holds(*means) else "**no**"
        rows.append([f"{one.metric}: {one.greater} {sign} {one.smaller}", values, answer])
    return Table("Whether the order of the means is the expected one", ["expected", "means", "came out so"], rows)
