r"""What is refused before a search begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.spectral_norm import SpectralNorm

from captum_dcf.generators.base import Generator

__all__ = [
    "check_data_range",
    "check_inputs",
    "check_modules",
    "check_tensor",
    "modules_of",
    "single_tensor",
]


def single_tensor(inputs: Any) -> tuple[Tensor, bool]:
    r"""The input tensor, and whether it came in a tuple of one.

    Raises:
        TypeError: Something else than a tensor or a tuple of one tensor.
    """
    is_tuple = isinstance(inputs, tuple)
    tensor = inputs[0] if is_tuple and len(inputs) == 1 else inputs
    if not isinstance(tensor, Tensor):
        received = f"a tuple of {len(inputs)}" if is_tuple else type(inputs).__name__
        raise TypeError(f"inputs must be one tensor or a tuple of one tensor, received {received}")
    return tensor, is_tuple


def check_inputs(inputs: Tensor) -> None:
    r"""Refuses what cannot be searched from: integers, no example, NaN or infinite pixels."""
    if not inputs.is_floating_point():
        raise TypeError(f"inputs must be floating point, received {inputs.dtype}")
    if inputs.ndim < 2:
        raise ValueError(f"inputs must have a batch dimension, as in (N, C, H, W), received {tuple(inputs.shape)}")
    if inputs.numel() == 0:
        raise ValueError(f"inputs must hold at least one example, received {tuple(inputs.shape)}")
    finite = inputs.isfinite().flatten(1).all(1)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise ValueError(f"inputs must be finite: example {first} of {len(inputs)} has NaN or infinite pixels")


def modules_of(function: Callable[..., Any]) -> list[nn.Module]:
    r"""The module a forward function is, is a method of, or binds arguments of; none for other functions."""
    while isinstance(function, partial):
        function = function.func
    owner = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    return [owner] if isinstance(owner, nn.Module) else []


def check_tensor(name: str, value: Any) -> None:
    r"""Refuses what is no tensor, such as the pair of mean and variance that many an encoder gives."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must return a tensor, received {type(value).__name__}; wrap it, to return the tensor")


def check_modules(modules: list[nn.Module]) -> None:
    r"""Refuses modules whose output has no gradient, or depends on chance or on the others in the batch."""
    for module in modules:
        if any(map(is_lazy, module.parameters())):
            raise ValueError(f"{type(module).__name__} has lazy layers without weights: call it once on images first")
        if isinstance(module, Generator):
            module.check_ready()
        if any(parameter.is_inference() for parameter in module.parameters()):
            raise ValueError(
                f"{type(module).__name__} has parameters without gradients: make it outside of torch.inference_mode()"
            )
        for name, part in module.named_modules():
            place = f"{type(module).__name__}.{name}" if name else type(module).__name__
            kind = _kind(part)
            # Every batch norm of torch, lazy and synchronised ones too, derives from this class.
            is_batch_norm = _is(part, nn.modules.batchnorm._BatchNorm)
            # torch.jit.freeze takes the flag away: only a module in evaluation mode can be frozen.
            is_training = getattr(part, "training", False)
            if is_batch_norm and (is_training or getattr(part, "running_mean", None) is None):
                raise ValueError(f"{place} ({kind}) uses batch statistics: call .eval() on the model first")
            if is_training and (_draws(part) or _learns(part)):
                raise ValueError(f"{place} ({kind}) is in training mode: call .eval() on the model first")


def check_data_range(generator: Generator) -> None:
    r"""Refuses bounds between which there is nothing, or no end."""
    bounds = generator.data_range
    is_pair = isinstance(bounds, Sequence) and len(bounds) == 2 and all(isinstance(bound, Real) for bound in bounds)
    if bounds is not None and not (is_pair and -math.inf < bounds[0] < bounds[1] < math.inf):
        raise ValueError(
            f"data_range of {type(generator).__name__} must be None or two finite numbers, the least and the greatest "
            f"value of a pixel, received {bounds}"
        )


def _kind(part: nn.Module) -> str:
    """The name of a module's class; of a scripted module, that of the class it was made from."""
    return part.original_name if isinstance(part, torch.jit.ScriptModule) else type(part).__name__


def _is(part: nn.Module, *classes: type[nn.Module]) -> bool:
    """Whether a module is of one of these classes, or was before it was scripted."""
    if isinstance(part, torch.jit.ScriptModule):
        # Of the class nothing is left but its name; only what derives from it directly is meant, such as BatchNorm2d.
        named = [one for family in classes for one in (family, *family.__subclasses__())]
        return part.original_name in [one.__name__ for one in named]
    return isinstance(part, classes)


def _draws(part: Any) -> bool:
    """Whether a module in training mode draws random numbers."""
    if _is(part, nn.modules.dropout._DropoutNd):
        return part.p > 0
    if _is(part, nn.RNNBase, nn.MultiheadAttention):
        return part.dropout > 0
    # The last are torchvision's, which the search must not import.
    return _is(part, nn.RReLU) or (
        _kind(part) in ("StochasticDepth", "DropBlock2d", "DropBlock3d") and getattr(part, "p", 1) > 0
    )


def _learns(part: nn.Module) -> bool:
    """Whether a module in training mode changes what it remembers, other than its parameters."""
    if _is(part, nn.modules.instancenorm._InstanceNorm):
        return getattr(part, "running_mean", None) is not None
    hooks = () if isinstance(part, torch.jit.ScriptModule) else part._forward_pre_hooks.values()
    # Both ways of torch to spectral norm: a parametrization of its own, and a hook.
    return _kind(part) == "_SpectralNorm" or any(isinstance(hook, SpectralNorm) for hook in hooks)
