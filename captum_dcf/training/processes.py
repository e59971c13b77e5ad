r"""Several processes that train together, one per device, which Lightning or a launcher has started."""

from __future__ import annotations

import os
from typing import TypeVar

import torch

__all__ = ["is_first", "of_first"]

Value = TypeVar("Value")


def is_first() -> bool:
    r"""Whether this process is the one that speaks and writes."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID"))


def of_first(value: Value) -> Value:
    r"""What the first process has found, in all of them; where there is but one, ``value``."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    found = [value]
    torch.distributed.broadcast_object_list(found, src=0)
    return found[0]
