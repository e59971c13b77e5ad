r"""Methods × generators × images × metrics, as tables: in shards, by any number of processes, resumable."""

from .case import Case, Metric, NotApplicable, SaliencyMap
from .comparison import Expectation
from .goals import at_least, at_most, leave, near, reach, shift
from .plan import Method, Plan, counterfactual_methods
from .quantus import quantus_explain
from .real import NearestReal
from .run import run
from .saliency import infidelity_metric, saliency_method, sensitivity_metric
from .summary import summarize
from .toml import bundled, read_plan

__all__ = [
    "Case",
    "Expectation",
    "Method",
    "Metric",
    "NearestReal",
    "NotApplicable",
    "Plan",
    "SaliencyMap",
    "at_least",
    "at_most",
    "bundled",
    "counterfactual_methods",
    "infidelity_metric",
    "leave",
    "near",
    "quantus_explain",
    "reach",
    "read_plan",
    "run",
    "saliency_method",
    "sensitivity_metric",
    "shift",
    "summarize",
]
