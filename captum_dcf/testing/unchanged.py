r"""That nothing of the caller's is changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_dcf.testing.promise import promise

__all__ = ["unchanged"]


@contextmanager
def unchanged(modules: list[nn.Module], *tensors: Tensor) -> Iterator[None]:
    r"""A context after which modules, tensors, random state and gradient mode must be as they were before it.

    Raises:
        BrokenPromise: Something was changed; the message says what.
    """
    before = _photograph(modules, tensors)
    yield
    for name, value in _photograph(modules, tensors).items():
        same = torch.equal(value, before[name]) if isinstance(value, Tensor) else value == before[name]
        promise(same, f"{name} was changed")


def _photograph(modules: list[nn.Module], tensors: tuple[Tensor, ...]) -> dict[str, Any]:
    seen: dict[str, Any] = {"the random state": torch.random.get_rng_state()}
    seen["the gradient mode"] = torch.is_grad_enabled()
    for number, tensor in enumerate(tensors):
        seen[f"tensor {number}"] = tensor.detach().clone()
        seen[f"requires_grad of tensor {number}"] = tensor.requires_grad
    for place, module in enumerate(modules):
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            seen[f"{name} of module {place}"] = value.detach().clone()
            seen[f"requires_grad of {name} of module {place}"] = value.requires_grad
            seen[f".grad of {name} of module {place}"] = None if value.grad is None else value.grad.clone()
        for name, part in module.named_modules():
            hooks = len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks)
            seen[f"mode and hooks of {name or type(part).__name__} of module {place}"] = (part.training, hooks)
    return seen
