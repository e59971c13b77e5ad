r"""What a result says of how it came to be, in values that JSON holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from captum_dcf.search import Coordinates, Goal, LeaveClass, Options, ReachClass
from captum_dcf.version import __version__

__all__ = ["described"]

# Values, one per example, that are said one by one.
SHOWN = 8
# Attributes of a method that are no settings; the last is Captum's.
SAID_APART = ("forward_func", "generator", "gradient_func")


def described(
    method: Any, goal: Goal, target: Any, coordinates: Coordinates, options: Options, max_steps: int
) -> dict[str, Any]:
    r"""Method, goal, target, generator, settings and versions of a call."""
    own = {name: value for name, value in vars(method).items() if not name.startswith("_") and name not in SAID_APART}
    settings = {name: _plain(value) for name, value in own.items()}
    settings["max_steps"] = max_steps
    for name in ("max_seconds", "refine", "min_percentile", "search_unreconstructed"):
        settings[name] = _plain(getattr(options, name))
    names = options.class_names
    return {
        **({} if names is None else {"class_names": list(names)}),
        "score": _score_words(getattr(goal, "goal", goal), names),
        "method": type(method).__name__,
        # A method may search for a goal of its own around that of the caller.
        "goal": _words(getattr(goal, "goal", goal)),
        "target": _plain(target),
        "model": _name(method.forward_func),
        "generator": type(coordinates).__name__,
        "settings": settings,
        "versions": {"captum_dcf": __version__, "torch": torch.__version__},
    }


def _score_words(goal: Goal, class_names: Sequence[str] | None) -> str:
    """What the scores of a goal are: a probability for one of classes."""
    if not isinstance(goal, (ReachClass, LeaveClass)):
        return "score"
    label = goal.label
    if isinstance(label, Tensor):
        distinct = label.unique().tolist()
        if len(distinct) > 1:
            return "P(target)" if isinstance(goal, ReachClass) else "P(another class)"
        label = distinct[0]
    name = str(label) if class_names is None or not 0 <= label < len(class_names) else class_names[label]
    return f"P({name})" if isinstance(goal, ReachClass) else f"P(not {name})"


def _plain(value: Any) -> Any:
    """A value as JSON holds it: itself, the values of a small tensor, else words."""
    if isinstance(value, Tensor):
        return value.tolist() if value.ndim < 2 else f"tensor {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, Real) and not isinstance(value, bool):
        return int(value) if isinstance(value, Integral) else float(value)
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return _words(value)
    return value


def _words(value: Any) -> str:
    """The name of a value's class, with its fields where it is a dataclass; one value for all is said once."""
    if not is_dataclass(value) or isinstance(value, type):
        return _name(value)
    parts = {field.name: getattr(value, field.name) for field in fields(value)}
    return f"{type(value).__name__}({', '.join(f'{name}={_short(part)}' for name, part in parts.items())})"


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        distinct = value.unique().tolist()
        if len(distinct) == 1:
            return str(distinct[0])
        return str(value.tolist()) if len(value) <= SHOWN else f"one of {len(value)} each"
    return _words(value) if is_dataclass(value) or callable(value) else repr(value)


def _name(value: Any) -> str:
    return getattr(value, "__qualname__", type(value).__name__)
