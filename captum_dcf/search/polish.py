r"""The last step, halved back to the nearest image on it that still reaches the goal."""

from __future__ import annotations

import torch

from captum_dcf.search.problem import Problem
from captum_dcf.search.record import Record
from captum_dcf.search.rows import half_way

__all__ = ["bisect"]

# A step halved so often is a 64th of itself.
HALVINGS = 6


def bisect(problem: Problem, record: Record, size: int) -> None:
    r"""Moves what was found back towards the last candidate that did not reach the goal, as far as it stays reached.

    Args:
        problem: What was searched.
        record: Changed in place.
        size: So many examples at a time.
    """
    found = (record.reached & (record.steps > 0)).nonzero().squeeze(1)
    # Splitting nothing gives one empty part, and many a model takes no empty batch.
    for rows in found.split(size) if len(found) else ():
        near, far = record.before[rows], record.points[rows]
        for _ in range(HALVINGS):
            at = problem.evaluate(half_way(near, far), rows)
            far = torch.where(at.reached[:, None], at.points, far)
            near = torch.where(at.reached[:, None], near, at.points)
            record.replace(at, at.reached)
        record.keep_frames(rows, record.images[rows])
