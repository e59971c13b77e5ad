r"""What methods that do not walk through latent space need: where they begin, how they judge, what they keep.

Each function that keeps something fills in the tensors of a result row by row; they are left alone once it is returned.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from captum_dcf.attr.counterfactual import CounterfactualAttribution, Query
from captum_dcf.search.problem import Problem
from captum_dcf.search.result import Counterfactual, Status
from captum_dcf.search.rows import finite_rows, like

__all__ = [
    "begin_in_latents",
    "begin_in_pixels",
    "clamp",
    "judge",
    "keep_better",
    "latent_problem",
    "refuse",
    "searching_rows",
    "told_in_latents",
]


def refuse(method: CounterfactualAttribution, query: Query, refine: str = "", keep_path: str = "") -> None:
    r"""Refuses ``refine`` or ``keep_path`` for the reason given.

    Raises:
        ValueError: The query asks for one that has a reason against it.
    """
    for name, asked, reason in (("refine", query.refine, refine), ("keep_path", query.keep_path, keep_path)):
        if asked and reason:
            raise ValueError(f"{type(method).__name__} accepts {name}=False only, received True: {reason}")


def latent_problem(method: CounterfactualAttribution, query: Query) -> Problem:
    r"""The decoder, model and goal of a query, for a method that moves latents."""
    image_shape = query.inputs.shape[1:]
    generator = method.generator
    return Problem(
        decode=lambda z: method.decode(z, image_shape),
        predict=query.predict,
        goal=query.goal,
        free=generator.free,
        data_range=generator.data_range,
    )


@torch.no_grad()
def begin_in_latents(query: Query, latents: Tensor, problem: Problem) -> Counterfactual:
    r"""The result before a search that starts at the reconstructions; those to be searched say BEST_EFFORT."""
    output, already = _ask_inputs(query)
    images, finite = problem.image(latents)
    other = query.predict(images, _everyone(query))
    finite &= finite_rows(other)
    goal = query.goal
    status = torch.full_like(finite, int(Status.BEST_EFFORT), dtype=torch.int64)
    status[goal.reached(other)] = Status.FOUND
    status[~goal.agrees(output, other)] = Status.NOT_RECONSTRUCTED
    status[~finite] = Status.NOT_FINITE
    status[already] = Status.ALREADY_THERE
    keeps_input = already | ~finite
    return Counterfactual(
        inputs=query.inputs,
        counterfactuals=torch.where(like(keeps_input, images), query.inputs, images),
        reconstructions=images,
        start_latents=latents,
        end_latents=latents.clone(),
        status=status,
        steps=torch.zeros_like(status),
        start_scores=goal.score(output),
        end_scores=torch.where(keeps_input, goal.score(output), goal.score(other)),
    )


@torch.no_grad()
def begin_in_pixels(method: CounterfactualAttribution, query: Query) -> Counterfactual:
    r"""The result before a search that starts at the inputs themselves; those to be searched say BEST_EFFORT."""
    output, already = _ask_inputs(query)
    scores = query.goal.score(output)
    latents = method.encode(query.inputs)
    status = torch.full_like(already, int(Status.BEST_EFFORT), dtype=torch.int64)
    status[already] = Status.ALREADY_THERE
    return Counterfactual(
        inputs=query.inputs,
        counterfactuals=query.inputs.clone(),
        reconstructions=clamp(method.decode(latents, query.inputs.shape[1:]), method.generator.data_range),
        start_latents=latents,
        end_latents=latents.clone(),
        status=status,
        steps=torch.zeros_like(status),
        start_scores=scores,
        end_scores=scores.clone(),
    )


@torch.no_grad()
def told_in_latents(method: CounterfactualAttribution, result: Counterfactual) -> Counterfactual:
    r"""A result found in pixels with reconstructions and latents from the method's generator."""
    latents = method.encode(result.inputs)
    return replace(
        result,
        reconstructions=clamp(method.decode(latents, result.inputs.shape[1:]), method.generator.data_range),
        start_latents=latents,
        end_latents=method.encode(result.counterfactuals),
    )


def searching_rows(result: Counterfactual) -> Tensor:
    r"""The rows that are still to be searched, int64."""
    return (result.status == Status.BEST_EFFORT).nonzero().squeeze(1)


@torch.no_grad()
def judge(query: Query, images: Tensor, rows: Tensor, finite: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Scores of images, whether they reach the goal, and whether they and the output are finite.

    Args:
        query: The query.
        images: Images (n, ...).
        rows: The rows of the query they belong to, (n,).
        finite: Whether each image was finite before it was clamped, (n,).
    """
    goal = query.goal.take(rows)
    output = query.predict(images, rows)
    finite = finite & finite_rows(output)
    return goal.score(output), finite & goal.reached(output), finite


def keep_better(
    result: Counterfactual, rows: Tensor, better: Tensor, images: Tensor, scores: Tensor, latents: Tensor | None = None
) -> None:
    r"""Takes over images where ``better`` is true, for the rows they belong to."""
    rows = rows[better]
    result.counterfactuals[rows] = images[better]
    result.end_scores[rows] = scores[better]
    if latents is not None:
        result.end_latents[rows] = latents[better]


def clamp(images: Tensor, data_range: tuple[float, float] | None) -> Tensor:
    r"""Images within the data range; as they are where there is none."""
    return images if data_range is None else images.clamp(*data_range)


def _ask_inputs(query: Query) -> tuple[Tensor, Tensor]:
    output = query.predict(query.inputs, _everyone(query))
    query.goal.check(output)
    return output, query.goal.reached(output)


def _everyone(query: Query) -> Tensor:
    return torch.arange(len(query.inputs), device=query.inputs.device)
