r"""The search: gradient steps in latent space, for a batch, until each example has arrived or cannot.

Each round judges one trial latent per example: one decode, one pass through the model and one gradient. An example that
has ended leaves the batch at once, so the work is the number of examples plus the sum of their steps. Nothing here
knows of Captum, of flows or of pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from captum_dcf.search.goal import Goal
from captum_dcf.search.problem import Problem, gradient_of
from captum_dcf.search.refine import bisect
from captum_dcf.search.result import Counterfactual, Status
from captum_dcf.search.rows import finite_rows, half_way, like
from captum_dcf.search.step import State, StepRule

__all__ = ["ascend"]

# Halved so often, a step is a millionth of what it was.
MOST_HALVINGS = 20


@dataclass(frozen=True)
class _Trials:
    """The examples still searching, one row each."""

    rows: Tensor  # where each stands in the whole batch
    latents: Tensor  # to be judged next
    origins: Tensor  # the last latents that were judged and stepped from
    state: State
    halvings: Tensor

    def take(self, keep: Tensor) -> _Trials:
        if keep.all():
            return self
        state = {name: value[keep] for name, value in self.state.items()}
        return _Trials(self.rows[keep], self.latents[keep], self.origins[keep], state, self.halvings[keep])


@dataclass(frozen=True)
class _Judgement:
    """What one round finds out about its trials."""

    images: Tensor
    output: Tensor
    scores: Tensor
    finite: Tensor  # decode and output are
    reached: Tensor
    gradient: Tensor  # of the loss in the latents; zero where the goal is reached
    usable: Tensor  # not there yet, and a step can be taken from here: all is finite and there is a gradient

    def take(self, keep: Tensor) -> _Judgement:
        if keep.all():
            return self
        return _Judgement(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})


def ascend(
    inputs: Tensor,
    latents: Tensor,
    problem: Problem,
    rule: StepRule,
    max_steps: int,
    refine: bool = False,
    keep_path: bool = False,
    on_round: Callable[[int], None] = lambda searching: None,
) -> Counterfactual:
    r"""Searches counterfactuals of a batch by gradient steps in latent space (Dombrowski et al., 2024, algorithm 1).

    A step whose decode, output or gradient is not finite, or that ends where the gradient is exactly zero (far out,
    where decoders saturate), is taken back and halved, for that example alone; one caught there begins again as its
    rule says. A step that makes things worse is not taken back: a monotone search gets trapped.

    Args:
        inputs: x, (N, ...).
        latents: encode(x), (N, D).
        problem: Decoder, model and goal.
        rule: How latents move.
        max_steps: Most steps of one example.
        refine: Bisect the last step of those found, down to the threshold of the goal.
        keep_path: Keep the images of all rounds.
        on_round: Called after each round with the number of examples that were searching.

    Returns:
        The result; its counterfactuals are finite if the inputs are.
    """
    everyone = torch.arange(len(inputs), device=inputs.device)
    with torch.no_grad():
        output = problem.predict(inputs, everyone)
    problem.goal.check(output)
    trials = _Trials(everyone, latents, latents, rule.start(latents), torch.zeros_like(everyone))
    judged = _judge(trials, problem)
    # Its tensors are filled in as the search goes on, row by row, and left alone once it is returned.
    result = _begin(inputs, latents, problem.goal, output, judged)
    last_origins = latents.clone()
    path = [result.counterfactuals.clone()]
    searching = result.status == Status.BEST_EFFORT
    trials, judged = _going_on(result, trials.take(searching), judged.take(searching), max_steps)
    while len(trials.rows):
        trials = _move(result, trials, judged, rule)
        if not len(trials.rows):
            break
        result.steps[trials.rows] += 1
        judged = _judge(trials, replace(problem, goal=problem.goal.take(trials.rows)))
        _keep_best(result, trials, judged)
        last_origins[trials.rows] = trials.origins
        if keep_path:
            path.append(_next_frame(path[-1], trials, judged))
        on_round(len(trials.rows))
        trials, judged = _going_on(result, trials, judged, max_steps)
    if refine:
        _refine(result, last_origins, problem)
    return replace(result, path=torch.stack(path)) if keep_path else result


def _judge(trials: _Trials, problem: Problem) -> _Judgement:
    goal = problem.goal
    with torch.enable_grad():
        z = trials.latents.detach().requires_grad_()
        images, finite = problem.image(z)
        output = problem.predict(images, trials.rows)
        losses = _one_each(goal, "loss", goal.loss(output), trials.rows)
    with torch.no_grad():
        finite = finite & finite_rows(output)
        reached = finite & _one_each(goal, "reached", goal.reached(output), trials.rows)
        scores = _one_each(goal, "score", goal.score(output), trials.rows)
    unfinished = finite & ~reached
    gradient = torch.zeros_like(z)
    if unfinished.any():
        gradient[:, problem.free] = gradient_of(losses[unfinished].sum(), z)[:, problem.free]
    usable = unfinished & gradient.isfinite().all(1) & (gradient != 0).any(1)
    return _Judgement(images.detach(), output.detach(), scores, finite, reached, gradient, usable)


def _one_each(goal: Goal, name: str, values: Tensor, rows: Tensor) -> Tensor:
    """What a goal, which may be a user's own, says of each example."""
    if values.shape != rows.shape:
        wanted, received = tuple(rows.shape), tuple(values.shape)
        raise ValueError(f"{type(goal).__name__}.{name} must give one value per example, {wanted}, received {received}")
    return values


def _begin(inputs: Tensor, latents: Tensor, goal: Goal, output: Tensor, judged: _Judgement) -> Counterfactual:
    """The result before the first step, from the model's output on the inputs and on their reconstructions.

    Those to be searched say BEST_EFFORT, which is how a search ends of which nothing else is to be said.
    """
    start_scores = goal.score(output)
    already = goal.reached(output)
    agrees = goal.agrees(output, judged.output)
    status = torch.full_like(already, int(Status.BEST_EFFORT), dtype=torch.int64)
    status[~agrees] = Status.NOT_RECONSTRUCTED
    status[~judged.finite] = Status.NOT_FINITE
    status[already] = Status.ALREADY_THERE
    keeps_input = already | ~judged.finite
    return Counterfactual(
        inputs=inputs,
        counterfactuals=torch.where(like(keeps_input, inputs), inputs, judged.images),
        reconstructions=judged.images,
        start_latents=latents,
        end_latents=latents.clone(),
        status=status,
        steps=torch.zeros_like(status),
        start_scores=start_scores,
        end_scores=torch.where(keeps_input, start_scores, judged.scores),
    )


def _going_on(
    result: Counterfactual, trials: _Trials, judged: _Judgement, max_steps: int
) -> tuple[_Trials, _Judgement]:
    """Those that have neither arrived nor used up their steps."""
    result.status[trials.rows[judged.reached]] = Status.FOUND
    goes_on = ~judged.reached & (result.steps[trials.rows] < max_steps)
    return trials.take(goes_on), judged.take(goes_on)


def _move(result: Counterfactual, trials: _Trials, judged: _Judgement, rule: StepRule) -> _Trials:
    """Steps from where a step can be taken, goes half-way back from where not."""
    usable = judged.usable
    stepped, state = rule.step(trials.latents, judged.gradient, trials.state)
    latents = torch.where(usable[:, None], stepped, half_way(trials.origins, trials.latents))
    origins = torch.where(usable[:, None], trials.latents, trials.origins)
    halvings = torch.where(usable, 0, trials.halvings + 1)
    moved = _Trials(trials.rows, latents, origins, _choose(usable, state, trials.state), halvings)
    caught = (latents == trials.latents).all(1) | (halvings > MOST_HALVINGS)
    if not caught.any():
        return moved
    finite = judged.finite & finite_rows(judged.gradient)
    result.status[moved.rows[caught & finite]] = Status.STALLED
    result.status[moved.rows[caught & ~finite]] = Status.NOT_FINITE
    return _begin_again(moved, caught, rule)


def _begin_again(trials: _Trials, caught: Tensor, rule: StepRule) -> _Trials:
    """Sends those that are caught to where their rule lets them begin again; ends those that it leaves there."""
    latents, state = rule.again(trials.origins, trials.state)
    goes_on = ~caught | ((latents != trials.origins) & ~latents.isnan()).any(1)
    latents = torch.where(caught[:, None], latents, trials.latents)
    return replace(trials, latents=latents, state=_choose(caught, state, trials.state)).take(goes_on)


def _choose(who: Tensor, state: State, other: State) -> State:
    return {name: torch.where(like(who, value), value, other[name]) for name, value in state.items()}


def _keep_best(result: Counterfactual, trials: _Trials, judged: _Judgement) -> None:
    better = judged.reached | (judged.finite & (judged.scores > result.end_scores[trials.rows]))
    rows = trials.rows[better]
    result.counterfactuals[rows] = judged.images[better]
    result.end_latents[rows] = trials.latents[better]
    result.end_scores[rows] = judged.scores[better]


def _next_frame(frame: Tensor, trials: _Trials, judged: _Judgement) -> Tensor:
    frame = frame.clone()
    frame[trials.rows[judged.finite]] = judged.images[judged.finite]
    return frame


def _refine(result: Counterfactual, last_origins: Tensor, problem: Problem) -> None:
    rows = (result.status == Status.FOUND).nonzero().squeeze(1)
    if not len(rows):
        return
    goal = problem.goal.take(rows)

    def judge(latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images, finite = problem.image(latents)
        output = problem.predict(images, rows)
        return images, goal.score(output), finite & goal.reached(output)

    with torch.no_grad():
        found = result.counterfactuals[rows], result.end_scores[rows]
        latents, images, scores = bisect(last_origins[rows], result.end_latents[rows], *found, judge)
    result.end_latents[rows], result.counterfactuals[rows], result.end_scores[rows] = latents, images, scores
