r"""FISTA: the smallest and sparsest change, by runs that each weigh the goal otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_dcf.search.problem import Evaluation, Problem
from captum_dcf.search.record import RUNNING
from captum_dcf.search.result import Status
from captum_dcf.search.rows import finite_rows
from captum_dcf.search.searcher import Move, Searcher, State

__all__ = ["Fista", "elastic_net", "soft_threshold"]


def soft_threshold(change: Tensor, threshold: float) -> Tensor:
    r"""sign(δ) · max(|δ| - threshold, 0): exact zeros wherever |δ| does not exceed the threshold."""
    return change.sign() * (change.abs() - threshold).clamp_min(0)


def elastic_net(change: Tensor, beta: float) -> Tensor:
    r"""β ‖δ‖₁ + ‖δ‖₂² per example, (n,)."""
    flat = change.flatten(1)
    return beta * flat.abs().sum(1) + flat.square().sum(1)


@dataclass(frozen=True, eq=False)
class Fista(Searcher):
    r"""Lowers c · loss of the goal + terms + ‖·‖₁ from x₀: x₊ = x₀ + S(y - η_k ∇(y) - x₀), y = x₊ + k/(k+3) (x₊ - x).

    η_k = ``lr`` √(1 - k/K) and S is the soft threshold, whose width does not depend on η_k, as in the code of
    Dhurandhar et al. and of Van Looveren and Klaise. Runs of K iterations look for c, each example for its own: ten
    times c until one run finds something, then bisection. Of all candidates that reach the goal the one with the least
    β‖δ‖₁ + ‖δ‖₂² is kept. A run whose every pixel falls under the threshold at x₀ itself would stay there, since η_k
    only falls; it ends at once, as does one whose image, output or gradient is not finite.

    Args:
        beta: β, the width of the soft threshold.
        lr: η₀.
        iterations: K.
        runs: Most runs.
        c: The first c.
    """

    beta: float
    lr: float
    iterations: int
    runs: int
    c: float
    gradient = False
    stops_at_goal = False

    def start(self, problem: Problem, at: Evaluation) -> State:
        zero, none = torch.zeros_like(at.points[:, 0]), torch.zeros_like(at.rows)
        return {
            "start": at.points,
            "y": at.points,  # where the next gradient is taken
            "last": at.points,  # x₊ of the last iteration
            "k": none,
            "run": none,
            "reason": none,  # how the last run ended
            "found": none.bool(),  # whether the present run has found something
            "c": zero + self.c,
            "lower": zero,
            "upper": zero + torch.inf,
        }

    def step(self, problem: Problem, at: Evaluation, state: State) -> Move:
        state = {**state, "found": state["found"] | at.reached}
        over = state["k"] >= self.iterations
        ended = torch.where(over & (state["run"] + 1 >= self.runs), state["reason"], RUNNING)
        state = self._next_run(state, over)
        goes_on = ended == RUNNING
        if goes_on.all():
            return Move(*self._iterate(problem, at.rows, state), None)
        points = at.points.clone()
        if goes_on.any():
            moved, after = self._iterate(problem, at.rows[goes_on], {name: one[goes_on] for name, one in state.items()})
            points[goes_on] = moved
            state = {name: one.clone() for name, one in state.items()}
            for name, one in after.items():
                state[name][goes_on] = one
        return Move(points, state, ended)

    def distance(self, problem: Problem, at: Evaluation, state: State) -> Tensor:
        return elastic_net(at.images - problem.inputs[at.rows], self.beta)

    def _iterate(self, problem: Problem, rows: Tensor, state: State) -> tuple[Tensor, State]:
        start, y, last = state["start"], state["y"], state["last"]
        at = problem.evaluate(y, rows, gradient=True, weight=state["c"])
        gradient = at.gradient
        if gradient is None:
            raise RuntimeError("FISTA needs a gradient")
        # Half precision cannot count.
        k = state["k"].to(torch.promote_types(y.dtype, torch.float32))[:, None]
        rate = (self.lr * (1 - k / self.iterations).sqrt()).to(y)
        moved = _within(problem, start + soft_threshold(y - rate * gradient - start, self.beta))
        resting = ((moved == start) & (y == start) & (last == start)).all(1)
        finite = at.finite & finite_rows(gradient)
        moved = torch.where(finite[:, None], moved, start)
        y = _within(problem, moved + (k / (k + 3)).to(y) * (moved - last))
        reason = torch.where(resting, int(Status.STALLED), int(Status.STEP_LIMIT))
        reason = torch.where(finite, reason, int(Status.NOT_FINITE))
        k = torch.where(resting | ~finite, self.iterations, state["k"] + 1)
        return moved, {**state, "y": y, "last": moved, "k": k, "reason": reason}

    def _next_run(self, state: State, over: Tensor) -> State:
        """Back to the start with another c, for those whose run is over."""
        c, found = state["c"], state["found"]
        lower = torch.where(over & ~found, c, state["lower"])
        upper = torch.where(over & found, c, state["upper"])
        following = torch.where(upper.isfinite(), (lower + upper) / 2, 10 * c)
        wide = over[:, None]
        return {
            **state,
            "y": torch.where(wide, state["start"], state["y"]),
            "last": torch.where(wide, state["start"], state["last"]),
            "k": torch.where(over, 0, state["k"]),
            "run": state["run"] + over.long(),
            "found": found & ~over,
            "c": torch.where(over, following, c),
            "lower": lower,
            "upper": upper,
        }


def _within(problem: Problem, points: Tensor) -> Tensor:
    bounds = problem.coordinates.data_range
    return points if bounds is None else points.clamp(*bounds)
