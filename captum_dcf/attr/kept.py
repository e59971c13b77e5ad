r"""What of the caller's is changed for a moment, and put back, also after an exception."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

__all__ = ["frozen_parameters", "ordinary_mode", "random_state_kept"]


@contextmanager
def frozen_parameters(modules: list[nn.Module]) -> Iterator[None]:
    r"""A block in which no parameter requires gradients: they are a third of the backward cost and never needed."""
    trainable = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextmanager
def ordinary_mode(device: torch.device) -> Iterator[None]:
    r"""Gradients, in full precision, whatever the mode of the caller: in half of it a flow is no longer invertible."""
    # Autocast for MPS came with torch 2.5; before, asking for it raises an error.
    is_available = getattr(torch.amp, "is_autocast_available", lambda kind: kind in ("cpu", "cuda"))
    autocast = torch.autocast(device.type, enabled=False) if is_available(device.type) else nullcontext()
    with torch.inference_mode(False), torch.enable_grad(), autocast:
        yield


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
