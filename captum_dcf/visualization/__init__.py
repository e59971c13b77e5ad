r"""Figures of counterfactuals and of generators."""

from .figure import counterfactual_figure
from .spectrum import spectrum_figure

__all__ = ["counterfactual_figure", "spectrum_figure"]
