r"""Revise: the search in latent space with a pull back to the input (Joshi et al., 2019)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from captum_dcf.attr.counterfactual import ModelOptions
from captum_dcf.attr.diffeomorphic import DiffeomorphicCounterfactual
from captum_dcf.search import Adam, Coordinates, Goal, Model, StepRule
from captum_dcf.search.numbers import check_real
from captum_dcf.search.term import PixelDistance, Term

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Revise"]


class Revise(DiffeomorphicCounterfactual):
    r"""Counterfactuals by gradient steps on ℓ(f(g(z)), t) + λ ‖x - g(z)‖₁ from z = g⁻¹(x).

    The search of :class:`DiffeomorphicCounterfactual` with one more term, which holds the counterfactual near its input
    in pixels; with λ = 0 it is that search with the plain cross-entropy. Like it, it stops at the first image that
    reaches the goal: another reading of the paper runs all steps and keeps the best valid image.

    Joshi, Koyejo, Vijitbenjaronk, Kim and Ghosh, "Towards Realistic Individual Recourse and Actionable Explanations in
    Black-Box Decision Making Systems", 2019, https://arxiv.org/abs/1907.09615

    Args:
        forward_func: The model: images (N, ...), and additional arguments, to outputs.
        generator: Coordinates of the data.
        distance_weight: λ. The distance is a sum over pixels, so λ belongs to the size of the images; the default is
            for 28×28. The greater it is, the nearer the counterfactuals and the fewer of them are found.
        step_rule: How latents move; ``Adam(0.05)`` by default.
        model_options: ``output``, ``select``, ``normalize``: see :class:`CounterfactualAttribution`.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        generator: Coordinates,
        distance_weight: float = 0.001,
        step_rule: StepRule | None = None,
        **model_options: Unpack[ModelOptions],
    ) -> None:
        rule = Adam(0.05) if step_rule is None else step_rule
        super().__init__(forward_func, generator, rule, softening=0.0, **model_options)
        self.distance_weight = check_real("distance_weight", distance_weight, at_least=0.0)

    def terms(self, inputs: Tensor, model: Model, goal: Goal, coordinates: Coordinates) -> tuple[Term, ...]:
        return (PixelDistance(inputs, self.distance_weight),) if self.distance_weight else ()
