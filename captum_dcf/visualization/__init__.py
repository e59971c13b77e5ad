r"""Figures of counterfactuals."""

from .figure import counterfactual_figure

__all__ = ["counterfactual_figure"]
