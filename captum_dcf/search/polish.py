r"""The last step, halved back to the nearest image on it that still reaches the goal."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from captum_dcf.search.memory import smaller_size
from captum_dcf.search.problem import Problem
from captum_dcf.search.record import Record
from captum_dcf.search.rows import half_way

__all__ = ["bisect"]

# A step halved so often is a 64th of itself.
HALVINGS = 6


def bisect(problem: Problem, record: Record, size: int, adapts: bool = False, deadline: float = math.inf) -> None:
    r"""Moves what was found back towards the last candidate that did not reach the goal, as far as it stays reached.

    Args:
        problem: What was searched.
        record: Changed in place.
        size: So many examples at a time.
        adapts: Whether to go on with half as many where memory runs out.
        deadline: By ``time.monotonic``, when to leave the rest as it is.
    """
    waiting = (record.reached & (record.steps > 0)).nonzero().squeeze(1)
    while len(waiting) and time.monotonic() < deadline:
        rows = waiting[:size]
        try:
            _halve(problem, record, rows)
        except (RuntimeError, MemoryError) as error:
            size = smaller_size(error, len(rows), adapts)
        else:
            record.keep_frames(rows, record.images[rows])
            waiting = waiting[len(rows) :]


def _halve(problem: Problem, record: Record, rows: Tensor) -> None:
    near, far = record.before[rows], record.points[rows]
    for _ in range(HALVINGS):
        at = problem.evaluate(half_way(near, far), rows)
        far = torch.where(at.reached[:, None], at.points, far)
        near = torch.where(at.reached[:, None], near, at.points)
        record.replace(at, at.reached)
