r"""The caller's random state, kept while something draws from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["random_state_kept"]


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    r"""A block after which the random states of the CPU and of ``device`` are as before, also after an exception."""
    # fork_rng knows CUDA's generators, but not that of MPS.
    state = torch.mps.get_rng_state() if device.type == "mps" else None
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        if state is not None:
            torch.mps.set_rng_state(state)
