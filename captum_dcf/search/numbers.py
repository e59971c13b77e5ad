r"""Numbers of a user's, checked: whole ones, and real ones within a bound."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_int", "check_real", "is_truth"]


def is_truth(value: Any) -> bool:
    r"""Whether it is True or False, of Python, torch or NumPy, whose older versions take theirs for an integer."""
    return isinstance(value, bool) or str(getattr(value, "dtype", None)) in ("bool", str(torch.bool))


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


def check_int(name: str, value: Any, at_least: int = 1, accepted: str = "an int") -> int:
    r"""A whole number, from whatever counts as one, within a bound and 63 bits.

    Raises:
        TypeError: It is no integer.
        ValueError: It is a word, or beyond the bound.
    """
    if isinstance(value, str):
        raise ValueError(f"{name} must be {accepted}, received {value!r}")
    try:
        if is_truth(value) or isinstance(value, Tensor):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be {accepted}, received {type(value).__name__}") from None
    if not at_least <= number < 2**63:
        raise ValueError(f"{name} must be at least {at_least} and below 2**63, received {number}")
    return number
