r"""Noise that depends on a number only: not on the window, the order or the device of a search."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["noise"]


def noise(seeds: Tensor, draw: Callable[[torch.Generator], Tensor], like: Tensor) -> Tensor:
    r"""What ``draw`` gives for each seed, on the device and in the dtype of ``like``.

    Drawn on the CPU, whose numbers every device shares, and once for equal seeds.

    Args:
        seeds: int64 (n,).
        draw: From a source of random numbers to a CPU tensor.
        like: Says device and dtype.

    Returns:
        (n, ...).
    """
    distinct, which = seeds.unique(return_inverse=True)
    # Whatever torch.set_default_device says.
    with torch.device("cpu"):
        drawn = [draw(torch.Generator("cpu").manual_seed(seed)) for seed in distinct.tolist()]
    return torch.stack(drawn).to(like)[which]
