r"""How plausible the inputs and what was found are to the generator, measured once at the end of a search."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_dcf.search.memory import smaller_size
from captum_dcf.search.problem import Problem
from captum_dcf.search.record import Record
from captum_dcf.search.rows import row_norm

__all__ = ["plausibilities"]


def plausibilities(problem: Problem, record: Record, size: int, adapts: bool = False) -> tuple[Tensor, Tensor] | None:
    r"""The plausibility of the inputs and that of the images kept, (N,) each; None where there is none.

    Args:
        problem: What was searched.
        record: What was found.
        size: So many images at a time.
        adapts: Whether to go on with half as many where memory runs out.
    """
    if problem.measured is None:
        return None
    if problem.measured == "latent_length":
        return -row_norm(record.start_points).squeeze(1), -row_norm(record.points).squeeze(1)
    bounds = problem.coordinates.data_range
    inputs = problem.inputs if bounds is None else problem.inputs.clamp(*bounds)
    # An image that was not moved is not asked about again.
    moved = (record.images != problem.inputs).flatten(1).any(1)
    start = _log_probs(problem, inputs, size, adapts)
    end = start.clone()
    end[moved] = _log_probs(problem, record.images[moved], size, adapts)
    return start, end


@torch.no_grad()
def _log_probs(problem: Problem, images: Tensor, size: int, adapts: bool) -> Tensor:
    parts: list[Tensor] = []
    done = 0
    while done < len(images):
        batch = images[done : done + size]
        try:
            parts.append(problem.coordinates.log_prob(batch.clone()).to(images))
        except (RuntimeError, MemoryError) as error:
            size = smaller_size(error, len(batch), adapts)
        else:
            done += len(batch)
    return torch.cat(parts) if parts else images.new_zeros(0)
