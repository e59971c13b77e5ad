r"""Methods × generators × images × measures, as tables: in shards, by any number of processes, resumable."""

from .description import bundled, read_plan
from .plan import Case, Measure, Method, NotApplicable, Plan, SaliencyMap, counterfactual_methods
from .quantus import quantus_explain
from .run import run
from .saliency import (
    deletion_measure,
    infidelity_measure,
    insertion_measure,
    saliency_method,
    sensitivity_measure,
)
from .summary import summarize

__all__ = [
    "Case",
    "Measure",
    "Method",
    "NotApplicable",
    "Plan",
    "SaliencyMap",
    "bundled",
    "counterfactual_methods",
    "deletion_measure",
    "infidelity_measure",
    "insertion_measure",
    "quantus_explain",
    "read_plan",
    "run",
    "saliency_method",
    "sensitivity_measure",
    "summarize",
]
