r"""What is refused before a search begins."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.spectral_norm import SpectralNorm

from captum_dcf.search import Coordinates

__all__ = [
    "check_data_range",
    "check_inputs",
    "check_int",
    "check_modules",
    "check_normalize",
    "check_real",
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


def check_inputs(inputs: Tensor, name: str = "inputs") -> None:
    r"""Refuses what cannot be searched from: integers, no example, NaN or infinite pixels."""
    if inputs.layout != torch.strided or inputs.is_nested or inputs.is_meta:
        kind = "nested" if inputs.is_nested else "meta" if inputs.is_meta else str(inputs.layout)
        raise TypeError(f"{name} must be a dense tensor with values, received a tensor that is {kind}")
    if not inputs.is_floating_point():
        raise TypeError(f"{name} must be floating point, received {inputs.dtype}")
    if inputs.ndim < 2:
        raise ValueError(f"{name} must have a batch dimension, as in (N, C, H, W), received {tuple(inputs.shape)}")
    if inputs.numel() == 0:
        raise ValueError(f"{name} must hold at least one example, received {tuple(inputs.shape)}")
    finite = inputs.isfinite().flatten(1).all(1)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise ValueError(f"{name} must be finite: example {first} of {len(inputs)} has NaN or infinite pixels")


def modules_of(function: Callable[..., Any]) -> list[nn.Module]:
    r"""The modules that a forward function calls, as far as can be seen.

    Those that it is, is a method of or is bound to; that an object keeps as attributes; that a function refers to.
    """
    found: list[nn.Module] = []
    while isinstance(function, partial):
        found += [value for value in (*function.args, *function.keywords.values()) if isinstance(value, nn.Module)]
        function = function.func
    owner = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    if isinstance(owner, nn.Module):
        return [*found, owner]
    if inspect.isfunction(function):
        seen = inspect.getclosurevars(function)
        values = [*seen.nonlocals.values(), *seen.globals.values()]
    else:
        values = (
            list(vars(owner if owner is not None else function).values()) if _has_attributes(function, owner) else []
        )
    return [*found, *(value for value in values if isinstance(value, nn.Module))]


def _has_attributes(function: Any, owner: Any) -> bool:
    return hasattr(owner if owner is not None else function, "__dict__")


def check_real(name: str, value: Any, at_least: float | None = None, above: float | None = None) -> float:
    r"""A finite number as a float, within a bound.

    Raises:
        TypeError: It is no number.
        ValueError: It is not finite, or beyond the bound.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, received {type(value).__name__}")
    number = float(value)
    wanted = f"{at_least:g} or more" if at_least is not None else f"more than {above:g}" if above is not None else ""
    is_within = (at_least is None or number >= at_least) and (above is None or number > above)
    if not (is_within and math.isfinite(number)):
        raise ValueError(f"{name} must be finite{' and ' if wanted else ''}{wanted}, received {value}")
    return number


def check_int(name: str, value: Any, at_least: int) -> int:
    r"""A whole number within a bound and 63 bits.

    Raises:
        TypeError: It is no integer.
        ValueError: It is beyond the bound.
    """
    try:
        if isinstance(value, (bool, Tensor)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, received {type(value).__name__}") from None
    if not at_least <= number < 2**63:
        raise ValueError(f"{name} must be at least {at_least} and below 2**63, received {number}")
    return number


def check_normalize(normalize: Any) -> None:
    r"""Refuses what is no mean and standard deviation of pixels."""
    if normalize is None:
        return
    if not isinstance(normalize, (tuple, list)) or len(normalize) != 2:
        raise ValueError(f"normalize must be (mean, standard deviation) or None, received {normalize!r}")
    for name, value in zip(("mean", "standard deviation"), normalize):
        entries = value if isinstance(value, (tuple, list)) else [value]
        for entry in entries:
            check_real(f"the {name} of normalize", entry, above=0.0 if name == "standard deviation" else None)


def check_modules(modules: list[nn.Module]) -> None:
    r"""Refuses modules whose output has no gradient, or depends on chance or on the others in the batch."""
    for module in modules:
        if any(map(is_lazy, module.parameters())):
            raise ValueError(f"{type(module).__name__} has lazy layers without weights: call it once on images first")
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


def check_data_range(coordinates: Coordinates) -> None:
    r"""Refuses bounds between which there is nothing, or no end."""
    bounds = coordinates.data_range
    is_pair = isinstance(bounds, Sequence) and len(bounds) == 2 and all(isinstance(bound, Real) for bound in bounds)
    if bounds is not None and not (is_pair and -math.inf < bounds[0] < bounds[1] < math.inf):
        raise ValueError(
            f"data_range of {type(coordinates).__name__} must be None or two finite numbers, the least and the "
            f"greatest value of a pixel, received {bounds}"
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
        return bool(part.p > 0)
    if _is(part, nn.RNNBase, nn.MultiheadAttention):
        return bool(part.dropout > 0)
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
