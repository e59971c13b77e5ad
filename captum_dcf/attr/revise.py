r"""Revise: the search in latent space with a pull back to the input (Joshi et al., 2019)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from captum_dcf.attr.counterfactual import Query
from captum_dcf.attr.diffeomorphic import DiffeomorphicCounterfactual
from captum_dcf.generators.base import Generator
from captum_dcf.search.goal import OutputKind
from captum_dcf.search.result import Counterfactual
from captum_dcf.search.step import Adam, StepRule

__all__ = ["Revise"]

# The slope of |x - g(z)| is its sign, but rises evenly within this difference: a reconstruction by a flow differs from
# the input by rounding only, whose sign means nothing and depends on the size of the batch.
ROUNDING = 1e-3


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
        output: What the model gives: ``"logits"``, ``"probabilities"`` or ``"binary_logit"``.
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        generator: Generator,
        distance_weight: float = 0.001,
        step_rule: StepRule | None = None,
        output: OutputKind = "logits",
    ) -> None:
        rule = Adam(0.05) if step_rule is None else step_rule
        super().__init__(forward_func, generator, rule, output, softening=0.0)
        if not 0 <= distance_weight < float("inf"):
            raise ValueError(f"distance_weight must be 0 or more and finite, received {distance_weight}")
        self.distance_weight = distance_weight

    def search(self, query: Query) -> Counterfactual:
        r"""The ascent of :class:`DiffeomorphicCounterfactual` on the loss with the distance."""

        def predict(images: Tensor, rows: Tensor) -> Tensor:
            slope = ((images.detach() - query.inputs[rows]) / ROUNDING).clamp(-1, 1)
            return query.predict(_WithPull.apply(images, self.distance_weight * slope), rows)

        return super().search(replace(query, predict=predict))


class _WithPull(torch.autograd.Function):
    # The images as they are, to which the gradient of the distance is added on the way back. So the loss gains a term
    # that speaks of images, although a goal knows outputs only.

    @staticmethod
    def forward(ctx: Any, images: Tensor, pull: Tensor) -> Tensor:
        ctx.save_for_backward(pull)
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (pull,) = ctx.saved_tensors
        return gradient + pull, None
