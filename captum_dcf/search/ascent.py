r"""Ascent: steps along the gradient of the goal, by any step rule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_dcf.search.problem import Evaluation, Problem
from captum_dcf.search.record import RUNNING
from captum_dcf.search.result import Status
from captum_dcf.search.rows import half_way, like, row_norm
from captum_dcf.search.searcher import Move, Searcher, State
from captum_dcf.search.step import StepRule

__all__ = ["Ascent"]

# Halved so often, a step is a millionth of what it was.
MOST_HALVINGS = 20
# Share of the way of its steps that a search gets on by, at least, unless it is circling. Those of MNIST that are get
# on by 0.03 to 0.14 of it; one that zigzags down a valley may get on by less than half, and arrives.
PROGRESS = 0.2
# How much shorter the steps of each further attempt are, and the shortest, in shares of the first: seven attempts.
SHORTER = 0.7
SHORTEST = 0.1
# In how many steps, at least, a careful search arrives where the loss is linear.
CAREFUL_STEPS = 4
# Keeps a rule's memory apart from the searcher's own: both may use the same names.
RULE = "rule."
LENGTH = RULE + "length"


@dataclass(frozen=True, eq=False)
class Ascent(Searcher):
    r"""Gradient steps from the start until the goal is reached (Dombrowski et al., 2024, algorithm 1).

    A step to where image, output or gradient is not finite, or where the gradient is exactly zero (far out, where
    decoders saturate), is taken back and halved, for that example alone. A step that makes things worse is not taken
    back: a monotone search gets trapped. A gradient that is nothing but rounding noise is stepped along like any other:
    how small noise is depends on what the model and the decoder compute.

    Where the rule names the length of its steps, a search that got on by less than a fifth of the way of its last
    ``patience`` steps is circling and hardly ever arrives. It restarts with steps of 0.7 the length, which lead another
    way, until they would be shorter than a tenth. So does one that has left its start and finds no step to take.

    Args:
        rule: How a gradient moves a point.
        careful: Whether the steps of an example go no further than a quarter of loss / ‖∇loss‖ at its start, the way on
            which the loss would vanish if it were linear (the step of Polyak, 1969). Only where the rule names the
            length of its steps.
    """

    rule: StepRule
    careful: bool = False

    def start(self, problem: Problem, at: Evaluation) -> State:
        z, none = at.points, torch.zeros_like(at.rows)
        own = {"start": z, "origin": z, "halvings": none, "mark": z, "since": none, "scale": torch.ones_like(z[:, :1])}
        state = {**own, **_prefixed(self.rule.start(z))}
        if self.careful and LENGTH in state and at.gradient is not None:
            promised = (at.loss[:, None] / row_norm(at.gradient)).to(z)
            # A slope of zero promises nothing.
            longest = torch.where(promised > 0, promised / CAREFUL_STEPS, torch.inf)
            state[LENGTH] = torch.minimum(state[LENGTH].reshape(-1, 1), longest)
        return state

    def step(self, problem: Problem, at: Evaluation, state: State) -> Move:
        z, gradient = at.points, at.gradient
        if gradient is None:
            raise RuntimeError("Ascent needs evaluations with a gradient")
        finite = at.finite & gradient.isfinite().all(1)
        usable = finite & (gradient != 0).any(1)
        points, moved = self._forward(z, gradient, state)
        if not usable.all():
            back = {**state, "halvings": state["halvings"] + 1}
            points = torch.where(usable[:, None], points, half_way(state["origin"], z))
            moved = _choose(usable, moved, back)
        caught = (points == z).all(1) | (moved["halvings"] > MOST_HALVINGS)
        if not caught.any():
            return Move(points, moved)
        moved, restarts = self._restart(moved, caught, moved["origin"])
        points = torch.where(restarts[:, None], moved["start"], points)
        reason = torch.where(finite, int(Status.STALLED), int(Status.NOT_FINITE))
        return Move(points, moved, torch.where(caught & ~restarts, reason, RUNNING))

    def _forward(self, z: Tensor, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """A step of the rule, or back to the start for those that circle."""
        looked, restarts = state["since"] == self.rule.patience, torch.zeros_like(state["since"], dtype=torch.bool)
        if LENGTH in state and looked.any():
            state, restarts = self._restart(state, looked & self._circling(z, state), z)
            looked = looked & ~restarts
        of_rule = {name.removeprefix(RULE): value for name, value in state.items() if name.startswith(RULE)}
        points, of_rule = self.rule.step(z, gradient, state["scale"], of_rule)
        points = points.to(z)
        if restarts.any():
            # The step that was just taken is not theirs.
            fresh = {name.removeprefix(RULE): value for name, value in self._fresh(state).items()}
            of_rule = _choose(restarts, fresh, of_rule)
        moved = {**state, **{RULE + name: value for name, value in of_rule.items()}}
        moved["origin"], moved["halvings"] = z, torch.zeros_like(state["halvings"])
        moved["since"] = torch.where(restarts, 0, torch.where(looked, 1, state["since"] + 1))
        moved["mark"] = torch.where(looked[:, None], z, state["mark"])
        return torch.where(restarts[:, None], state["start"], points), moved

    def _circling(self, z: Tensor, state: State) -> Tensor:
        way = self.rule.patience * state["scale"] * state[LENGTH].reshape(-1, 1)
        return (row_norm(z - state["mark"]) < PROGRESS * way).squeeze(1)

    def _restart(self, state: State, who: Tensor, here: Tensor) -> tuple[State, Tensor]:
        """The state of those that start anew with shorter steps, for whom it is worth it, and who that is."""
        if LENGTH not in state or not who.any():
            return state, torch.zeros_like(who)
        shorter = SHORTER * state["scale"]
        worth = who & (shorter > SHORTEST).squeeze(1)
        restarts = worth & (state["start"] != here).any(1)
        scale = torch.where(worth[:, None], shorter, state["scale"])
        anew = {"mark": state["start"], "since": torch.zeros_like(state["since"])}
        fresh = {**state, **anew, **self._fresh(state)}
        return {**_choose(restarts, fresh, state), "scale": scale}, restarts

    def _fresh(self, state: State) -> State:
        """The memory of the rule at the start, with the lengths of steps that belong to the examples."""
        return {**_prefixed(self.rule.start(state["start"])), LENGTH: state[LENGTH]}


def _prefixed(state: State) -> State:
    return {RULE + name: value for name, value in state.items()}


def _choose(who: Tensor, state: State, other: State) -> State:
    return {name: torch.where(like(who, value), value, other[name]) for name, value in state.items()}
