r"""Line: one gradient, then equal steps along it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_dcf.search.problem import Evaluation, Problem
from captum_dcf.search.record import RUNNING
from captum_dcf.search.result import Status
from captum_dcf.search.searcher import Move, Searcher, State
from captum_dcf.search.step import unit

__all__ = ["Line"]


@dataclass(frozen=True, eq=False)
class Line(Searcher):
    r"""Equal steps along the gradient of the start.

    A search that leaves the finite numbers ends: farther out on its line they do not come back.

    Args:
        length: Length of a step; or a function of the start points (n, D) that gives it.
    """

    length: float | Callable[[Tensor], Tensor]
    gradient = False

    def start(self, problem: Problem, at: Evaluation) -> State:
        gradient = problem.evaluate(at.points, at.rows, gradient=True).gradient
        if gradient is None:
            raise RuntimeError("a line needs a gradient")
        length = self.length(at.points) if callable(self.length) else float(self.length)
        shift = -length * unit(gradient)
        return {"start": at.points, "shift": shift, "count": torch.zeros_like(at.rows)}

    def step(self, problem: Problem, at: Evaluation, state: State) -> Move:
        shift, count = state["shift"], state["count"] + 1
        ended = torch.where((shift == 0).all(1), int(Status.STALLED), RUNNING)
        ended = torch.where(at.finite & shift.isfinite().all(1), ended, int(Status.NOT_FINITE))
        # Half precision cannot count.
        wide = torch.promote_types(shift.dtype, torch.float32)
        way = (count.to(wide)[:, None] * shift.to(wide)).to(shift)
        return Move(state["start"] + way, {**state, "count": count}, ended)
