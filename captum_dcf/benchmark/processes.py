r"""One process or many: who does which shard, by torch.distributed where ``torchrun`` started it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

__all__ = ["Processes", "check_device", "is_first", "local_device", "processes"]

DEVICES = ("cpu", "cuda", "mps")
# How long one process waits for the slowest: shards of slow methods take their time.
PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Processes:
    r"""This process among those of the run.

    Attributes:
        rank: Its number.
        count: How many there are.
    """

    rank: int
    count: int

    def share(self, numbers: list[int]) -> list[int]:
        r"""This process's part of a list; that of the first process is divided, since others may see a later state."""
        if self.count > 1:
            box = [numbers]
            distributed.broadcast_object_list(box, src=0)
            numbers = box[0]
        return numbers[self.rank :: self.count]

    def wait(self) -> None:
        r"""Waits until all processes have come here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def processes() -> Iterator[Processes]:
    r"""The processes that ``torchrun`` started, or this one alone.

    They exchange a list of numbers and wait for each other, nothing else: gloo serves on CPUs and GPUs alike.
    """
    if distributed.is_initialized():
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        distributed.init_process_group("gloo", timeout=PATIENCE)
        try:
            yield Processes(distributed.get_rank(), distributed.get_world_size())
        finally:
            distributed.destroy_process_group()
    else:
        yield Processes(0, 1)


def is_first() -> bool:
    r"""Whether this process is the one that speaks."""
    return os.environ.get("RANK", "0") == "0"


def local_device(device: str) -> str:
    r"""``"cuda"`` as the GPU of this process; other devices as they are."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device


def check_device(device: str) -> None:
    r"""Refuses a device that torch does not find here.

    Raises:
        ValueError: There is no such device.
    """
    try:
        if torch.device(device).type not in DEVICES:
            raise ValueError(f"device must be cpu, cuda or mps, received {device!r}")
        torch.empty(0, device=device)
    # A build of torch without the device raises an AssertionError.
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"device must be cpu, cuda or mps, and there: received {device!r} ({error})") from error
