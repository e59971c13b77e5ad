r"""Statistics of a table: for each method and measure the median, mean, deviation, and how sure they are."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

__all__ = ["MethodSummary", "Statistics", "bootstrap_interval", "statistics", "summarize"]

RESAMPLES = 2000
COVERAGE = 0.95
# Resampled values that are held at once: 32 MiB of float64.
VALUES_AT_ONCE = 2**22


@dataclass(frozen=True)
class Statistics:
    r"""Of the values of one method and one measure; NaN where there are none.

    Attributes:
        count: Number of values; missing ones and NaN are not counted.
        median: The median.
        median_low: Lower end of the median's 95 % bootstrap interval.
        median_high: Upper end of it.
        mean: The mean.
        deviation: The standard deviation of a sample, with n - 1; 0 for a single value.
        mean_low: Lower end of the mean's 95 % bootstrap interval.
        mean_high: Upper end of it.
        is_share: Whether all values are 0 or 1, so that the mean may be a share.
    """

    count: int
    median: float
    median_low: float
    median_high: float
    mean: float
    deviation: float
    mean_low: float
    mean_high: float
    is_share: bool


@dataclass
class MethodSummary:
    r"""One method, with one generator and one confidence, over all images.

    Attributes:
        method: Its name.
        generator: Its generator's name.
        confidence: Its Λ.
        total: Images, those with an error too.
        errors: Images with an error.
        found: Images whose counterfactual was found; None for a method that gives none.
        images_per_second: Of one process, searching only.
        memory_mib: The most memory that one shard took.
        all: Statistics over all images by measure.
        of_found: Statistics over the images whose counterfactual was found.
    """

    method: str
    generator: str
    confidence: float | None
    total: int = 0
    errors: int = 0
    found: int | None = None
    images_per_second: float | None = None
    memory_mib: float | None = None
    all: dict[str, Statistics] = field(default_factory=dict)
    of_found: dict[str, Statistics] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        r"""One flat row per measure, for all images and for those that were found."""
        head = {name: getattr(self, name) for name in HEAD}
        return [
            {**head, "measure": measure, "over": over, **asdict(values)}
            for over, table in (("all", self.all), ("found", self.of_found))
            for measure, values in table.items()
        ]


HEAD = ("method", "generator", "confidence", "total", "errors", "found", "images_per_second", "memory_mib")


def summarize(rows: Iterable[Mapping[str, Any]], measures: Sequence[str]) -> list[MethodSummary]:
    r"""The summary of a table.

    Args:
        rows: Rows as a benchmark writes them.
        measures: The columns to summarise, beside steps and seconds.

    Returns:
        One summary per method, in the order of the table.
    """
    columns = ["steps", "seconds", *measures]
    gathered: dict[tuple[Any, ...], _Gathered] = {}
    for row in rows:
        key = row["method"], row["generator"], row["confidence"]
        gathered.setdefault(key, _Gathered(columns)).add(row)
    return [values.summary(*key) for key, values in gathered.items()]


def statistics(values: Sequence[float] | np.ndarray) -> Statistics:
    r"""Median, mean, deviation, and 95 % bootstrap intervals of median and mean; NaN are left out.

    Examples:
        >>> statistics([1.0, 2.0, 6.0, float("nan")]).median
        2.0
    """
    sample = np.asarray(values, dtype=np.float64)
    sample = sample[~np.isnan(sample)]
    if not len(sample):
        nothing = float("nan")
        return Statistics(0, nothing, nothing, nothing, nothing, nothing, nothing, nothing, False)
    return Statistics(
        len(sample),
        float(np.median(sample)),
        *bootstrap_interval(sample, "median"),
        float(sample.mean()),
        float(sample.std(ddof=1)) if len(sample) > 1 else 0.0,
        *bootstrap_interval(sample, "mean"),
        bool(np.isin(sample, (0.0, 1.0)).all()),
    )


def bootstrap_interval(sample: np.ndarray, of: Literal["mean", "median"] = "mean") -> tuple[float, float]:
    r"""The 95 % percentile bootstrap interval of the mean or the median, from 2,000 resamples; always the same one."""
    draw = np.random.default_rng(0)
    at_once = max(1, VALUES_AT_ONCE // len(sample))
    reduced = []
    for start in range(0, RESAMPLES, at_once):
        count = min(at_once, RESAMPLES - start)
        resamples = sample[draw.integers(0, len(sample), (count, len(sample)))]
        reduced.append(np.median(resamples, axis=1) if of == "median" else resamples.mean(axis=1))
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(np.concatenate(reduced), [tail, 1 - tail])
    return float(low), float(high)


class _Gathered:
    """The values of one method, as flat arrays: a table of any length is read row by row."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.values = {name: array("d") for name in columns}
        self.found = array("d")
        self.errors = 0
        self.memory: float | None = None

    def add(self, row: Mapping[str, Any]) -> None:
        self.errors += row["error"] is not None
        self.found.append(_number(row["found"]))
        for name, values in self.values.items():
            values.append(_number(row.get(name)))
        if row["memory_mib"] is not None:
            self.memory = max(row["memory_mib"], self.memory or 0.0)

    def summary(self, method: str, generator: str, confidence: float | None) -> MethodSummary:
        found = np.asarray(self.found)
        values = {name: np.asarray(column) for name, column in self.values.items()}
        seconds = values["seconds"][~np.isnan(values["seconds"])]
        is_judged = not np.isnan(found).all()
        return MethodSummary(
            method,
            generator,
            confidence,
            total=len(found),
            errors=self.errors,
            found=int(np.nansum(found)) if is_judged else None,
            images_per_second=float(len(seconds) / seconds.sum()) if seconds.sum() > 0 else None,
            memory_mib=self.memory,
            all={name: statistics(column) for name, column in values.items()},
            of_found={name: statistics(column[found == 1]) for name, column in values.items()} if is_judged else {},
        )


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
