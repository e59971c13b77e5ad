r"""Several processes that train together, one per device, which Lightning or a launcher has started."""

from __future__ import annotations

import os

__all__ = ["is_first"]


def is_first() -> bool:
    r"""Whether this process is the one that speaks and writes."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID"))
