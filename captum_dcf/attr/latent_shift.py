r"""LatentShift: one gradient, then a line search along it (Cohen et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from captum_dcf.attr._outcome import (
    begin_in_latents,
    judge,
    keep_better,
    latent_problem,
    searching_rows,
)
from captum_dcf.attr.counterfactual import CounterfactualAttribution, Query
from captum_dcf.attr.diffeomorphic import STEPS_PER_TYPICAL_LENGTH
from captum_dcf.generators.base import Generator
from captum_dcf.search.goal import OutputKind
from captum_dcf.search.problem import Problem, gradient_of
from captum_dcf.search.refine import bisect
from captum_dcf.search.result import Counterfactual, Status
from captum_dcf.search.step import unit

__all__ = ["LatentShift"]


class LatentShift(CounterfactualAttribution):
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
        output: What the model gives: ``"logits"``, ``"probabilities"`` or ``"binary_logit"``.
    """

    default_max_steps = 2 * STEPS_PER_TYPICAL_LENGTH

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        generator: Generator,
        step_length: float | None = None,
        output: OutputKind = "logits",
    ) -> None:
        super().__init__(forward_func, generator, output)
        if step_length is not None and not 0 < step_length < float("inf"):
            raise ValueError(f"step_length must be positive and finite, received {step_length}")
        self.step_length = step_length

    def search(self, query: Query) -> Counterfactual:
        r"""The gradient, and the line."""
        latents = self.encode(query.inputs)
        problem = latent_problem(self, query)
        result = begin_in_latents(query, latents, problem)
        shifts = self._shifts(query, latents, searching_rows(result), problem)
        _leave_out(result, shifts)
        path = [result.counterfactuals.clone()]
        for step in range(1, query.max_steps + 1):
            rows = searching_rows(result)
            if not len(rows):
                break
            images, finite = _try(result, query, problem, latents[rows] + step * shifts[rows], rows)
            if query.keep_path:
                path.append(path[-1].clone())
                path[-1][rows[finite]] = images[finite]
            query.on_round(len(rows))
        if query.refine:
            _refine(result, query, problem, shifts)
        return replace(result, path=torch.stack(path)) if query.keep_path else result

    def _shifts(self, query: Query, latents: Tensor, rows: Tensor, problem: Problem) -> Tensor:
        """One step along the line for each of ``rows``, zero for the others; not finite where the gradient is not."""
        gradient = torch.zeros_like(latents)
        if len(rows):
            z = latents[rows].requires_grad_()
            losses = query.goal.take(rows).loss(query.predict(problem.image(z)[0], rows))
            moving = torch.zeros_like(z)
            moving[:, problem.free] = gradient_of(losses.sum(), z)[:, problem.free]
            gradient[rows] = moving
        length = self.step_length or self.generator.typical_length(latents) / STEPS_PER_TYPICAL_LENGTH
        shifts = -length * unit(gradient)
        return shifts


def _leave_out(result: Counterfactual, shifts: Tensor) -> None:
    """Ends those that have no line to go along."""
    searching = result.status == Status.BEST_EFFORT
    result.status[searching & (shifts == 0).all(1)] = Status.STALLED
    result.status[searching & ~shifts.isfinite().all(1)] = Status.NOT_FINITE


@torch.no_grad()
def _try(
    result: Counterfactual, query: Query, problem: Problem, latents: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Judges the next point of each line and keeps it where it is better; its images, and which are finite."""
    images, finite = problem.image(latents)
    scores, reached, finite = judge(query, images, rows, finite)
    keep_better(result, rows, reached | (finite & (scores > result.end_scores[rows])), images, scores, latents)
    result.steps[rows] += 1
    result.status[rows[reached]] = Status.FOUND
    # Farther out on a line that has left the finite numbers they do not come back.
    result.status[rows[~finite]] = Status.NOT_FINITE
    return images, finite


@torch.no_grad()
def _refine(result: Counterfactual, query: Query, problem: Problem, shifts: Tensor) -> None:
    rows = ((result.status == Status.FOUND) & (result.steps > 0)).nonzero().squeeze(1)
    if not len(rows):
        return

    def judge_latents(latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images, finite = problem.image(latents)
        scores, reached, _ = judge(query, images, rows, finite)
        return images, scores, reached

    after = result.end_latents[rows]
    found = result.counterfactuals[rows], result.end_scores[rows]
    latents, images, scores = bisect(after - shifts[rows], after, *found, judge_latents)
    result.end_latents[rows], result.counterfactuals[rows], result.end_scores[rows] = latents, images, scores
