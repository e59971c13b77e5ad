r"""External: one run of somebody else's search, judged like any other candidate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_dcf.search.problem import Evaluation, Problem
from captum_dcf.search.record import RUNNING
from captum_dcf.search.result import Status
from captum_dcf.search.searcher import Move, Searcher, State

__all__ = ["External"]


@dataclass(frozen=True, eq=False)
class External(Searcher):
    r"""One step per example, from its input to what ``attack`` makes of it.

    Args:
        attack: Images (n, ...) and the rows they belong to, (n,), to images of the same shape.
    """

    attack: Callable[[Tensor, Tensor], Tensor]
    gradient = False

    def start(self, problem: Problem, at: Evaluation) -> State:
        return {"is_new": torch.ones_like(at.reached)}

    def step(self, problem: Problem, at: Evaluation, state: State) -> Move:
        new, points = state["is_new"], at.points
        if new.any():
            rows = at.rows[new]
            images = self.attack(problem.inputs[rows], rows)
            points = points.clone()
            # As they are: what is beyond the range is clamped, and what is not finite is seen, where they are judged.
            points[new] = images.detach().reshape(len(rows), -1).to(points)
        ended = torch.where(at.finite, int(Status.STEP_LIMIT), int(Status.NOT_FINITE))
        ended = torch.where(new, RUNNING, ended)
        return Move(points, {"is_new": torch.zeros_like(new)}, ended)
