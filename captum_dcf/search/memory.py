r"""How torch says that memory ran out."""

from __future__ import annotations

import torch

__all__ = ["is_out_of_memory"]

# What torch says without a class for it: MPS, the CPU, the CPU on Linux.
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    r"""Whether an error says that memory ran out: CUDA and Python have a class for it, the CPU and MPS words."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
