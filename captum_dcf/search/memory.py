r"""How torch says that memory ran out."""

from __future__ import annotations

import torch

__all__ = ["is_out_of_memory", "smaller_size"]

# What torch says without a class for it: MPS, the CPU, the CPU on Linux.
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    r"""Whether an error says that memory ran out: CUDA and Python have a class for it, the CPU and MPS words."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def smaller_size(error: Exception, examples: int, adapts: bool) -> int:
    r"""Half of a number of examples, if memory ran out and fewer might do; raises the error otherwise."""
    if not adapts or examples == 1 or not is_out_of_memory(error):
        raise error
    return max(1, examples // 2)
