r"""Contexts that change something of the caller's for a moment and put it back, also after an exception."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

__all__ = ["fixed_parameters", "ordinary_mode", "preserve_random_state"]

# How many contexts, of whatever thread, hold a parameter, by its id: the last one to leave puts its flag back. A
# context keeps the parameters themselves, so an id here is not given to another object.
_holders: dict[int, int] = {}
_lock = threading.Lock()


@contextmanager
def fixed_parameters(modules: Sequence[nn.Module]) -> Iterator[None]:
    r"""A context in which no parameter requires gradients: they are a third of the backward cost and never needed.

    Contexts may overlap, in several threads too.
    """
    parameters = {id(one): one for module in modules for one in module.parameters()}
    held = []
    try:
        with _lock:
            for key, parameter in parameters.items():
                if parameter.requires_grad or key in _holders:
                    _holders[key] = _holders.get(key, 0) + 1
                    held.append(key)
                    parameter.requires_grad_(False)
        yield
    finally:
        with _lock:
            for key in held:
                _holders[key] -= 1
                if not _holders[key]:
                    del _holders[key]
                    parameters[key].requires_grad_(True)


@contextmanager
def ordinary_mode(device: torch.device) -> Iterator[None]:
    r"""Gradients, in full precision, whatever the mode of the caller: in half of it a flow is no longer invertible."""
    # Autocast for MPS came with torch 2.5; before, asking for it raises an error.
    is_available = getattr(torch.amp, "is_autocast_available", lambda kind: kind in ("cpu", "cuda"))
    autocast = torch.autocast(device.type, enabled=False) if is_available(device.type) else nullcontext()
    with torch.inference_mode(False), torch.enable_grad(), autocast:
        yield


@contextmanager
def preserve_random_state(device: torch.device) -> Iterator[None]:
    r"""A context after which the random states of the CPU and of ``device`` are as before."""
    # fork_rng knows CUDA's generators, but not that of MPS.
    state = torch.mps.get_rng_state() if device.type == "mps" else None
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        if state is not None:
            torch.mps.set_rng_state(state)
