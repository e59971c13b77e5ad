r"""How many examples are searched at a time: all, a fixed number, or as many as pay."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, Literal

import torch

from captum_dcf.search.result import Counterfactual

__all__ = ["BatchSize", "check_batch_size", "is_out_of_memory", "search_in_batches"]

BatchSize = int | Literal["auto"] | None

# "auto" begins with so many examples and doubles as long as the decodes per second rise by this factor.
FIRST_SIZE = 16
LEAST_GAIN = 1.05
# What torch says without a class for it: MPS, the CPU, the CPU on Linux.
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


def check_batch_size(size: Any) -> None:
    r"""Raises a TypeError or ValueError for what is no ``internal_batch_size``."""
    if size is None or (isinstance(size, str) and size == "auto"):
        return
    if isinstance(size, str):
        raise ValueError(f"internal_batch_size must be an int, 'auto' or None, received {size!r}")
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"internal_batch_size must be an int, 'auto' or None, received {type(size).__name__}")
    if size < 1:
        raise ValueError(f"internal_batch_size must be at least 1, received {size}")


def search_in_batches(
    examples: int, size: BatchSize, search: Callable[[int, int], Counterfactual]
) -> list[Counterfactual]:
    r"""The results of consecutive batches.

    Args:
        examples: Number of examples.
        size: So many at a time; None for all at once. ``"auto"`` begins with 16 and doubles as long as that makes the
            search faster; a batch that does not fit into memory is halved, searched again and never exceeded.
        search: Searches the examples from the first number up to, not including, the second.
    """
    if size == "auto":
        return _search_growing(examples, search)
    size = size or examples
    return [search(start, min(start + size, examples)) for start in range(0, examples, size)]


def is_out_of_memory(error: Exception) -> bool:
    r"""Whether an error says that memory did not suffice: CUDA has a class for it, the CPU and MPS only words."""
    is_own_class = isinstance(error, torch.cuda.OutOfMemoryError)
    return is_own_class or any(words in str(error) for words in OUT_OF_MEMORY)


def _search_growing(examples: int, search: Callable[[int, int], Counterfactual]) -> list[Counterfactual]:
    parts: list[Counterfactual] = []
    start, size, fastest, growing = 0, FIRST_SIZE, 0.0, True
    while start < examples:
        stop = min(start + size, examples)
        begun = perf_counter()
        part = _search_if_it_fits(start, stop, search)
        if part is None:
            size, growing = (stop - start) // 2, False
            continue
        parts.append(part)
        start = stop
        if growing:
            # Examples differ in their steps, so decodes are what is counted. Adding them up waits for the device.
            speed = (len(part) + int(part.steps.sum())) / (perf_counter() - begun)
            growing = speed > LEAST_GAIN * fastest
            fastest = max(fastest, speed)
            size = 2 * size if growing else size // 2
    return parts


def _search_if_it_fits(start: int, stop: int, search: Callable[[int, int], Counterfactual]) -> Counterfactual | None:
    try:
        return search(start, stop)
    except RuntimeError as error:
        if stop - start == 1 or not is_out_of_memory(error):
            raise
    # The caller tries again from here, not from within the except block: there the traceback holds the tensors still.
    return None
