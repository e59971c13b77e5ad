r"""Checks and small conversions that the measures share."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["ForwardFunc", "check_same_shape", "class_indices", "class_probabilities", "run_model"]

ForwardFunc = Callable[..., Tensor]


def check_same_shape(inputs: Tensor, counterfactuals: Tensor) -> None:
    r"""Raises a ValueError with both shapes unless they are the same, and a TypeError unless both are of floats."""
    if inputs.shape != counterfactuals.shape:
        raise ValueError(
            "inputs and counterfactuals must have the same shape, "
            f"received {tuple(inputs.shape)} and {tuple(counterfactuals.shape)}"
        )
    if not (inputs.is_floating_point() and counterfactuals.is_floating_point()):
        # Differences of unsigned integers wrap around.
        raise TypeError(f"images must be of floats, received {inputs.dtype} and {counterfactuals.dtype}")


def class_indices(target: int | Tensor, images: Tensor, name: str = "target") -> Tensor:
    r"""One class index per image, int64 (N,), from an int for all of them or an integer tensor (N,).

    Raises:
        TypeError: ``target`` is something else.
        ValueError: ``target`` has another length than ``images``, or a class is negative.
    """
    if not isinstance(target, Tensor) and not isinstance(target, bool) and hasattr(target, "__index__"):
        target = torch.full((len(images),), operator.index(target))
    if not isinstance(target, Tensor) or target.is_floating_point() or target.dtype == torch.bool:
        raise TypeError(f"{name} must be an int or an integer tensor (N,), received {target!r}")
    if target.shape != images.shape[:1]:
        raise ValueError(
            f"{name} must hold one class per image: images are {tuple(images.shape)}, {name} is {tuple(target.shape)}"
        )
    indices = target.to(images.device, torch.int64)
    if (indices < 0).any():
        raise ValueError(f"{name} must be class indices of at least 0, received {target!r}")
    return indices


def run_model(forward_func: ForwardFunc, inputs: Tensor, additional_forward_args: Any = None) -> Tensor:
    r"""Calls a model with further arguments given Captum's way: None, one argument, or a tuple of them."""
    if additional_forward_args is None:
        return forward_func(inputs)
    if not isinstance(additional_forward_args, tuple):
        additional_forward_args = (additional_forward_args,)
    return forward_func(inputs, *additional_forward_args)


def class_probabilities(output: Tensor, target: Tensor) -> Tensor:
    r"""Probabilities (N, C) from logits (N, C), or (N, 2) from the one logit (N,) or (N, 1) of a binary model.

    Raises:
        ValueError: The output has another shape, or no class ``target``.
    """
    if output.dim() > 2 or output.shape[:1] != target.shape:
        raise ValueError(
            f"a model must give logits (N, C), or one logit (N,) or (N, 1), for N = {len(target)} images, "
            f"received {tuple(output.shape)}"
        )
    if output.dim() == 1 or output.shape[1] == 1:
        logit = output.reshape(-1, 1)
        output = torch.cat((torch.zeros_like(logit), logit), dim=1)
    if (target >= output.shape[1]).any():
        raise ValueError(f"the model has the classes 0 to {output.shape[1] - 1}, received class {int(target.max())}")
    return output.softmax(1)
