r"""LatentShift: one gradient, then a line search along it (Cohen et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from captum_dcf.attr.counterfactual import ModelOptions
from captum_dcf.attr.spaces import STEPS_PER_TYPICAL_LENGTH, LatentMethod
from captum_dcf.search import Coordinates, Problem, Searcher
from captum_dcf.search.line import Line
from captum_dcf.search.step import check_length

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["LatentShift"]


class LatentShift(LatentMethod):
    r"""Counterfactuals on one line in latent space: x'_λ = g(z + λ d) with z = g⁻¹(x) and d the unit gradient at z.

    λ grows in equal steps until f says the target or ``max_steps`` are done. The gradient is that of the goal's loss;
    for a class its direction is that of the gradient of the class's probability. One backward pass in all, which makes
    it the cheapest method; a line is often not enough.

    Cohen, Brooks, En, Zucker, Pareek, Lungren and Chaudhari, "Gifsplanation via Latent Shift", MIDL 2021,
    https://arxiv.org/abs/2102.09475

    Args:
        forward_func: The model: images (N, ...), and additional arguments, to outputs.
        generator: Coordinates of the data.
        step_length: By how much λ grows, in latent units; by default 1/28 of the length a latent typically has, so that
            the 56 steps which are the most by default go as far as two such lengths.
        model_options: ``output``, ``select``, ``normalize``: see :class:`CounterfactualAttribution`.
    """

    default_max_steps = 2 * STEPS_PER_TYPICAL_LENGTH

    def __init__(
        self,
        forward_func: Callable[..., Any],
        generator: Coordinates,
        step_length: float | None = None,
        **model_options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(forward_func, generator, **model_options)
        if step_length is not None:
            check_length("step_length", step_length)
        self.step_length = step_length

    def searcher(self, problem: Problem, max_steps: int) -> Searcher:
        return Line(self.step_length or self.default_length)
