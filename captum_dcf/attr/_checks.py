r"""Arguments that are refused before a search begins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from captum_dcf.search.numbers import check_real
from captum_dcf.search.step import StepRule

__all__ = [
    "check_channels",
    "check_choice",
    "check_data_range",
    "check_inputs",
    "check_normalize",
    "check_step_rule",
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
    # Of eight bits there is no arithmetic.
    if not inputs.is_floating_point() or inputs.element_size() < 2:
        raise TypeError(f"{name} must be floating point of 16 bits or more, received {inputs.dtype}")
    if inputs.ndim < 2:
        raise ValueError(f"{name} must have a batch dimension, as in (N, C, H, W), received {tuple(inputs.shape)}")
    if inputs.numel() == 0:
        raise ValueError(f"{name} must hold at least one example, received {tuple(inputs.shape)}")
    finite = inputs.isfinite().flatten(1).all(1)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise ValueError(f"{name} must be finite: example {first} of {len(inputs)} has NaN or infinite pixels")


def check_step_rule(step_rule: Any) -> None:
    r"""Refuses what is neither a step rule nor None."""
    if step_rule is not None and not isinstance(step_rule, StepRule):
        received = step_rule.__name__ if isinstance(step_rule, type) else type(step_rule).__name__
        raise TypeError(f"step_rule must be a captum_dcf StepRule, such as Adam(0.05), received {received}")


def check_choice(name: str, value: Any, accepted: Sequence[str]) -> None:
    r"""Raises a ValueError for what is none of some words."""
    if not isinstance(value, str) or value not in accepted:
        raise ValueError(f"{name} must be one of {tuple(accepted)}, received {value!r}")


def check_normalize(normalize: Any) -> None:
    r"""Refuses what is no mean and standard deviation of pixels."""
    if normalize is None:
        return
    if not isinstance(normalize, (tuple, list)) or len(normalize) != 2:
        raise ValueError(f"normalize must be (mean, standard deviation) or None, received {normalize!r}")
    for name, value in zip(("mean", "standard deviation"), normalize):
        entries = value if isinstance(value, (tuple, list)) else [value]
        if not entries:
            raise ValueError(f"the {name} of normalize must be a number or one per channel, received {value!r}")
        for entry in entries:
            check_real(f"the {name} of normalize", entry, above=0.0 if name == "standard deviation" else None)


def check_channels(normalize: Any, inputs: Tensor) -> None:
    r"""Refuses means and deviations of another number of channels than the inputs (N, C, ...) have."""
    for name, value in zip(("mean", "standard deviation"), normalize or ()):
        # One for three channels, or the reverse, would be broadcast.
        if isinstance(value, (tuple, list)) and len(value) not in (1, inputs.shape[1]):
            raise ValueError(
                f"the {name} of normalize must be a number or one per channel, received {len(value)} for inputs of "
                f"{inputs.shape[1]} channels"
            )


def check_data_range(bounds: Any, owner: str = "") -> None:
    r"""Refuses bounds between which there is nothing, or no end.

    Args:
        bounds: Least and greatest value of a pixel, or None.
        owner: Whose bounds they are, if not an argument.
    """
    is_pair = isinstance(bounds, Sequence) and len(bounds) == 2 and all(isinstance(bound, Real) for bound in bounds)
    if bounds is not None and not (is_pair and -math.inf < bounds[0] < bounds[1] < math.inf):
        raise ValueError(
            f"data_range{f' of {owner}' if owner else ''} must be None or two finite numbers, the least and the "
            f"greatest value of a pixel, received {bounds!r}"
        )
