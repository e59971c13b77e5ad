r"""Statistics of a table: for each method and metric the median, mean, deviation, and how sure they are."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas

__all__ = ["MethodSummary", "Statistics", "bootstrap_interval", "check_extra", "statistics", "summarize"]

RESAMPLES = 2000
COVERAGE = 0.95
# Resampled values that are held at once: 32 MiB of float64.
VALUES_AT_ONCE = 2**22
NAN = float("nan")


@dataclass(frozen=True)
class Statistics:
    r"""Of the values of one method and one metric; NaN where there are too few.

    Attributes:
        count: Number of values; missing ones and NaN are not counted.
        median: The median.
        median_low: Lower end of the median's 95 % bootstrap interval; NaN for a single value.
        median_high: Upper end of it.
        mean: The mean.
        deviation: The standard deviation of a sample, with n - 1; NaN for a single value.
        mean_low: Lower end of the mean's 95 % bootstrap interval; NaN for a single value.
        mean_high: Upper end of it.
        is_share: Whether all values are 0 or 1, so that the mean may be a share.
    """

    count: int
    median: float = NAN
    median_low: float = NAN
    median_high: float = NAN
    mean: float = NAN
    deviation: float = NAN
    mean_low: float = NAN
    mean_high: float = NAN
    is_share: bool = False


@dataclass
class MethodSummary:
    r"""One method, with one generator and one confidence, over all images.

    Attributes:
        method: Its name.
        generator: Its generator's name.
        confidence: Its Λ; None where a value is to be reached, or nothing.
        total: Images, those with an error too.
        errors: Images with an error.
        already_there: Images that reach the goal by themselves: nothing is to be found for them, and no other figure
            counts them. None for a method that gives no counterfactual.
        found: Images whose counterfactual reaches the goal, of the others; None likewise.
        images_per_second: Of one process, searching only.
        memory_mib: The most memory that one shard took.
        all: Statistics by metric over all images that are not already there.
        of_found: Statistics over the images whose counterfactual was found.
        of_set: Metrics of the whole set of counterfactuals.
    """

    method: str
    generator: str
    confidence: float | None
    total: int
    errors: int
    already_there: int | None
    found: int | None
    images_per_second: float | None
    memory_mib: float | None
    all: dict[str, Statistics]
    of_found: dict[str, Statistics]
    of_set: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, float | None]:
        r"""What tells it from the other methods."""
        return self.method, self.generator, self.confidence

    @property
    def sought(self) -> int:
        r"""Images for which there is something to be found."""
        return self.total - (self.already_there or 0)

    def records(self) -> list[dict[str, Any]]:
        r"""One flat row per metric, for all images and for those that were found."""
        head = {name: getattr(self, name) for name in HEAD}
        of_set = {name: Statistics(self.sought - self.errors, mean=value) for name, value in self.of_set.items()}
        return [
            {**head, "metric": metric, "over": over, **asdict(values)}
            for over, table in (("all", self.all), ("found", self.of_found), ("set", of_set))
            for metric, values in table.items()
        ]


JUDGED = ("already_there", "found")
HEAD = ("method", "generator", "confidence", "total", "errors", *JUDGED, "images_per_second", "memory_mib")


def check_extra() -> None:
    r"""Makes sure that what statistics need is installed.

    Raises:
        ImportError: It is not.
    """
    try:
        import pandas  # noqa: F401
        import scipy  # noqa: F401
    except ModuleNotFoundError as error:
        raise ImportError(f'a benchmark needs {error.name}: pip install "captum_dcf[benchmark]"') from error


def summarize(rows: Iterable[Mapping[str, Any]], metrics: Sequence[str]) -> list[MethodSummary]:
    r"""The summary of a table.

    Args:
        rows: Rows as a benchmark writes them.
        metrics: The columns to summarise, beside steps and seconds.

    Returns:
        One summary per method, in the order of the table.

    Raises:
        ImportError: pandas or scipy is missing.
    """
    check_extra()
    import pandas

    columns = list(dict.fromkeys(["steps", "seconds", *metrics]))
    kept = ["method", "generator", "confidence", *JUDGED, "error", "memory_mib", *columns]
    table = pandas.DataFrame.from_records([[row.get(name) for name in kept] for row in rows], columns=kept)
    table = table.astype(dict.fromkeys([*JUDGED, "memory_mib", *columns], float))
    groups = table.groupby(["method", "generator", "confidence"], sort=False, dropna=False)
    return [_of_method(group, columns) for _, group in groups]


def _of_method(rows: pandas.DataFrame, columns: Sequence[str]) -> MethodSummary:
    first, seconds = rows.iloc[0], rows["seconds"]
    is_judged = bool(rows["found"].notna().any())
    there, found = rows["already_there"] == 1, rows[rows["found"] == 1]
    return MethodSummary(
        first["method"],
        first["generator"],
        None if np.isnan(np.float64(first["confidence"])) else float(first["confidence"]),
        total=len(rows),
        errors=int(rows["error"].notna().sum()),
        already_there=int(there.sum()) if is_judged else None,
        found=len(found) if is_judged else None,
        images_per_second=float(seconds.count() / seconds.sum()) if seconds.sum() > 0 else None,
        memory_mib=float(rows["memory_mib"].max()) if rows["memory_mib"].notna().any() else None,
        all={name: statistics(rows[name][~there]) for name in columns},
        of_found={name: statistics(found[name]) for name in columns} if is_judged else {},
    )


def statistics(values: Sequence[float] | np.ndarray | pandas.Series) -> Statistics:
    r"""Median, mean, deviation, and 95 % bootstrap intervals of median and mean; NaN are left out.

    Examples:
        >>> statistics([1.0, 2.0, 6.0, float("nan")]).median
        2.0
    """
    sample = np.asarray(values, dtype=np.float64)
    sample = sample[~np.isnan(sample)]
    if not len(sample):
        return Statistics(0)
    # Of infinite values the deviation is NaN, and so are the intervals that reach them.
    with np.errstate(invalid="ignore"):
        return Statistics(
            len(sample),
            float(np.median(sample)),
            *bootstrap_interval(sample, "median"),
            float(sample.mean()),
            float(sample.std(ddof=1)) if len(sample) > 1 else NAN,
            *bootstrap_interval(sample, "mean"),
            bool(np.isin(sample, (0.0, 1.0)).all()),
        )


def bootstrap_interval(sample: np.ndarray, of: Literal["mean", "median"] = "mean") -> tuple[float, float]:
    r"""The 95 % percentile bootstrap interval of the mean or the median, from 2,000 resamples; always the same one.

    Returns:
        Its ends; NaN for a single value, which says nothing about others.
    """
    from scipy.stats import bootstrap

    if len(sample) < 2:
        return NAN, NAN
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        interval = bootstrap(
            (sample,),
            np.mean if of == "mean" else np.median,
            n_resamples=RESAMPLES,
            batch=max(1, VALUES_AT_ONCE // len(sample)),
            vectorized=True,
            confidence_level=COVERAGE,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
    return float(interval.low), float(interval.high)
