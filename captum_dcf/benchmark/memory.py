r"""The most memory that was in use since it was last asked, for tables: MiB of a GPU, or of the whole process."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

__all__ = ["peak_mib", "reset_peak"]

MIB = 2**20
STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
# What clear_refs takes for "forget the peak of the resident size".
PEAK_OF_RESIDENT_SIZE = "5"


def reset_peak(device: torch.device) -> None:
    r"""Forgets the peak, where that is possible: on a GPU and on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        RESET.write_text(PEAK_OF_RESIDENT_SIZE)
    except OSError:
        return


def peak_mib(device: torch.device) -> float | None:
    r"""The peak: what torch allocated on a GPU, else the resident size of the process. None where nobody tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    try:
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) / 1024
    except (OSError, KeyError):
        return _peak_of_the_process()


def _peak_of_the_process() -> float | None:
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)
