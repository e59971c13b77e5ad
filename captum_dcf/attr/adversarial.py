r"""AdversarialExample: the same walk in pixels, the baseline beside counterfactuals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from captum_dcf.attr._checks import check_step_rule
from captum_dcf.attr.counterfactual import ModelOptions
from captum_dcf.attr.spaces import PixelMethod
from captum_dcf.search import Adam, Ascent, Problem, Searcher, StepRule

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AdversarialExample"]


class AdversarialExample(PixelMethod):
    r"""Gradient steps on the pixels themselves until f says the target: x' is near x but leaves the data.

    The search of :class:`DiffeomorphicCounterfactual` with pixels as coordinates. The defaults are the paper's for
    MNIST, Adam with learning rate 5e-4 and at most 2000 steps, without softening. Its others: 7e-4 and 1000 for CelebA,
    5e-4 and 1000 for CheXpert, 1e-4 and 5000 for Mall. ``Adam(5e-3)`` arrives in a tenth of the steps, at a distance
    that is somewhat greater.

    Dombrowski, Gerken, Müller and Kessel, "Diffeomorphic Counterfactuals with Generative Models", IEEE TPAMI 46(5),
    2024, section 4, https://arxiv.org/abs/2206.05075

    Args:
        forward_func: The model: images (N, ...), and additional arguments, to outputs.
        data_range: Least and greatest pixel value, None for no bounds.
        step_rule: How pixels move; ``Adam(5e-4)`` by default.
        model_options: ``output``, ``select``, ``normalize``: see :class:`CounterfactualAttribution`.
    """

    default_max_steps = 2000

    def __init__(
        self,
        forward_func: Callable[..., Any],
        data_range: tuple[float, float] | None = (0.0, 1.0),
        step_rule: StepRule | None = None,
        **model_options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(forward_func, data_range, **model_options)
        check_step_rule(step_rule)
        self.step_rule = step_rule or Adam(5e-4)

    def searcher(self, problem: Problem, max_steps: int) -> Searcher:
        return Ascent(self.step_rule)
