r"""Clocks, spreads and printing: what the scripts of this folder share."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

__all__ = ["machine", "show", "spread", "waited"]


@contextmanager
def waited(device: torch.device) -> Iterator[Callable[[], float]]:
    r"""Gives a function that tells, afterwards, how many seconds the block took, with the device's work done."""
    begun = ended = 0.0
    synchronize(device)
    begun = perf_counter()
    try:
        yield lambda: ended - begun
    finally:
        synchronize(device)
        ended = perf_counter()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def machine(device: torch.device) -> dict[str, Any]:
    r"""What the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        cpu = names[0] if names else cpu
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "commit": commit.stdout.strip(),
    }


def show(figures: dict[str, Any], indent: str = "") -> None:
    for name, value in figures.items():
        if isinstance(value, dict) and set(value) == {"median", "least", "greatest"}:
            print(f"{indent}{name}: {value['median']:.4g} ({value['least']:.4g} to {value['greatest']:.4g})")
        elif isinstance(value, dict):
            print(f"{indent}{name}")
            show(value, indent + "  ")
        else:
            print(f"{indent}{name}: {value:.4g}" if isinstance(value, float) else f"{indent}{name}: {value}")


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "least": min(values), "greatest": max(values)}
