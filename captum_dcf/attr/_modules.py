r"""Modules: which ones a forward function calls, and which of them are not ready for a search."""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import jit, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.spectral_norm import SpectralNorm

__all__ = ["check_modules", "modules_of"]


# A longer list is data rather than an ensemble of models.
MOST_ENTRIES = 64


def modules_of(function: Callable[..., Any]) -> list[nn.Module]:
    r"""The modules that a forward function calls, as far as can be seen, each once.

    Those that it is, or is a method of; for a function those that its code names, in its closure and among globals;
    for an object with ``__call__``, or a method of one, those that the object keeps as attributes. Lists and dicts of
    modules are opened, and what is called is followed. What an object holds that is not itself called is not seen, as
    in ``lambda x: trainer.model(x)``.
    """
    found: list[nn.Module] = []
    # Values rather than their ids alone: an id is given again once its object is gone, as bound methods soon are.
    seen: dict[int, Any] = {}
    waiting: list[Any] = [function]
    while waiting:
        value = waiting.pop(0)
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, nn.Module):
            found.append(value)
        else:
            waiting.extend(_called_by(value))
    return found


def _called_by(value: Any) -> Iterable[Any]:
    """What a value that is no module may call; nothing if it cannot call anything."""
    if isinstance(value, partial):
        return value.func, *value.args, *value.keywords.values()
    if isinstance(value, MethodType):
        owner = value.__self__
        return (owner,) if isinstance(owner, nn.Module) else (value.__func__, *_attributes(owner))
    if isinstance(value, FunctionType):
        return _named_by(value)
    if isinstance(value, (list, tuple, Mapping)):
        entries = list(value.values()) if isinstance(value, Mapping) else value
        return entries if len(entries) <= MOST_ENTRIES else ()
    if callable(value) and not isinstance(value, type):
        return type(value).__call__, *_attributes(value)
    return ()


def _attributes(value: Any) -> Iterable[Any]:
    return () if isinstance(value, type) else vars(value).values() if hasattr(value, "__dict__") else ()


def _named_by(function: FunctionType) -> Iterator[Any]:
    """The values that the code of a function refers to."""
    for cell in function.__closure__ or ():
        # A name that is not bound yet has an empty cell.
        with suppress(ValueError):
            yield cell.cell_contents
    for name in _globals_of(function.__code__):
        yield function.__globals__.get(name)


def _globals_of(code: CodeType) -> set[str]:
    # Not co_names, in which attributes stand too: x.model is not the global model.
    names = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    return names.union(*(_globals_of(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


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


def _kind(part: nn.Module) -> str:
    """The name of a module's class; of a scripted module, that of the class it was made from."""
    return part.original_name if isinstance(part, jit.ScriptModule) else type(part).__name__


def _is(part: nn.Module, *classes: type[nn.Module]) -> bool:
    """Whether a module is of one of these classes, or was before it was scripted."""
    if isinstance(part, jit.ScriptModule):
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
    hooks = () if isinstance(part, jit.ScriptModule) else part._forward_pre_hooks.values()
    # Both ways of torch to spectral norm: a parametrization of its own, and a hook.
    return _kind(part) == "_SpectralNorm" or any(isinstance(hook, SpectralNorm) for hook in hooks)
