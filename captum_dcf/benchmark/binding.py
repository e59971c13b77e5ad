r"""Metrics by name, bound to the judges and references of a plan: the data of each call are passed by their names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from captum_dcf import registry
from captum_dcf.benchmark.case import Case, Metric
from captum_dcf.benchmark.saliency import infidelity_metric, sensitivity_metric
from captum_dcf.benchmark.setup import Setup, check_known
from captum_dcf.metrics.registry import METRICS, load_metric, register

__all__ = ["CAPTUM", "ESTIMATORS", "BoundMetric", "make_metric"]

# Captum's own metrics, which ask the method about other images.
CAPTUM: dict[str, Callable[..., Metric]] = {"infidelity": infidelity_metric, "sensitivity": sensitivity_metric}
# Oracles that are trained on the references.
ESTIMATORS = {"svm": "captum_dcf.training.oracle:fit_svm_oracle"}

register("l2_to_class", "captum_dcf.benchmark.source_class:l2_to_class")
register("l2_latent_to_class", "captum_dcf.benchmark.source_class:l2_latent_to_class")


@dataclass(frozen=True)
class BoundMetric:
    r"""A metric of :mod:`captum_dcf.metrics` as a function of a case.

    Attributes:
        metric: The metric.
        judges: Gives what it asks.
        references: Gives real images and their labels.
        settings: Its keyword arguments.
    """

    metric: Any
    judges: Callable[[], list[Any]]
    references: Callable[[], tuple[Tensor, Tensor]]
    settings: Mapping[str, Any]

    @property
    def better(self) -> str | None:
        r"""Whether higher or lower is better."""
        better: str | None = self.metric.better
        return better

    @property
    def of(self) -> str:
        r"""Whether it gives a value per example or one of the whole set."""
        of: str = self.metric.of
        return of

    def __call__(self, case: Case) -> Any:
        return self.metric(*self.judges(), *(self._data(name, case) for name in self.metric.data), **self.settings)

    def _data(self, name: str, case: Case) -> Tensor:
        if name in ("references", "reference_labels"):
            return self.references()[name == "reference_labels"]
        data: Tensor = getattr(case, name)
        return data


def make_metric(setup: Setup, label: str, name: str, arguments: Mapping[str, Any]) -> Metric:
    r"""The metric that one entry of a TOML file stands for.

    Args:
        setup: What to take judges and references from.
        label: Its name in the table.
        name: Its name in ``captum_dcf.metrics.METRICS``, or one of Captum's.
        arguments: Its judges by their names, and its settings.

    Raises:
        ValueError: An unknown metric, judge or setting, or a judge that is missing.
        FileNotFoundError: There is no such model.
    """
    if name in CAPTUM:
        check_known(f"settings of {label!r}", arguments, ["noise" if name == "infidelity" else "radius", "samples"])
        return CAPTUM[name](setup.model, **arguments)
    check_known("metric", [name], sorted([*METRICS, *CAPTUM]))
    metric = load_metric(name)
    check_known(f"arguments of the metric {label!r}", arguments, [*metric.judges, *metric.settings])
    makers = [_judge(setup, label, judge, arguments) for judge in metric.judges]
    parameters = inspect.signature(metric).parameters
    absent = [one for one in metric.settings if parameters[one].default is inspect.Parameter.empty]
    absent = [one for one in absent if one not in arguments]
    if absent:
        raise ValueError(f"the metric {label!r} is not complete: it needs {', '.join(absent)}")
    settings = {setting: value for setting, value in arguments.items() if setting in metric.settings}
    return BoundMetric(metric, lambda: [make() for make in makers], setup.references, settings)


def _judge(setup: Setup, label: str, judge: str, arguments: Mapping[str, Any]) -> Callable[[], Any]:
    if judge not in arguments:
        defaults: dict[str, Any] = {"classifier": setup.model, "network": None}
        if len(setup.generators) == 1:
            [defaults["generator"]] = setup.generators.values()
        if judge not in defaults:
            raise ValueError(f"the metric {label!r} is not complete: it needs {judge}, the name of a model")
        return lambda: defaults[judge]
    name = arguments[judge]
    if judge == "autoencoders":
        per_class = setup.weights.per_class(name)
        return lambda: per_class
    if name in ESTIMATORS:
        return lambda: setup.estimator(name, registry.imported(ESTIMATORS[name]))
    model = setup.weights.load(name, is_generator=judge == "generator")
    return lambda: model
