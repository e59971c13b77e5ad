r"""Counterfactual methods, one class each, to be used like those of ``captum.attr``."""

from .counterfactual import CounterfactualAttribution, CounterfactualWarning
from .diffeomorphic import DiffeomorphicCounterfactual

__all__ = ["CounterfactualAttribution", "CounterfactualWarning", "DiffeomorphicCounterfactual"]
