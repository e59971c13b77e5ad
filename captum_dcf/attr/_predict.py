r"""The model as the search asks it: images, and which examples they belong to, to checked outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_dcf.attr._batches import is_out_of_memory

__all__ = ["Predict", "of_rows", "predictor"]

Predict = Callable[[Tensor, Tensor], Tensor]


def predictor(forward_func: Callable[..., Any], additional_forward_args: Any, examples: int) -> Predict:
    r"""The forward function with its additional arguments bound, for images of any of the examples.

    Args:
        forward_func: Images (n, ...) and additional arguments to outputs (n, ...).
        additional_forward_args: One argument or a tuple; tensors whose first dimension is ``examples`` hold one entry
            per example.
        examples: Number of examples of the whole batch.

    Returns:
        A function of images (n, ...) and the rows of the batch they belong to, (n,), to outputs in float32 or float64.
        It raises a TypeError or ValueError for images the model cannot take and outputs a search cannot use.
    """
    is_tuple = isinstance(additional_forward_args, tuple)
    arguments = additional_forward_args if is_tuple else (additional_forward_args,)
    arguments = () if additional_forward_args is None else arguments

    def predict(images: Tensor, rows: Tensor) -> Tensor:
        output = _called(forward_func, images, [_rows_of(argument, rows, examples) for argument in arguments])
        _check_output(output, images)
        return output if output.dtype in (torch.float32, torch.float64) else output.float()

    return predict


def of_rows(predict: Predict, part: Tensor) -> Predict:
    r"""The same function for a part of the batch: rows count within ``part``."""
    return lambda images, rows: predict(images, part[rows])


def _rows_of(argument: Any, rows: Tensor, examples: int) -> Any:
    if not isinstance(argument, Tensor):
        return argument
    if argument.ndim > 0 and len(argument) == examples:
        return argument[rows.to(argument.device)]
    # One that was made in inference mode cannot be differentiated through; its copy can.
    return argument.clone() if argument.is_inference() else argument


def _called(forward_func: Callable[..., Any], images: Tensor, arguments: list[Any]) -> Any:
    try:
        return forward_func(images, *arguments)
    except RuntimeError as error:
        # Torch says this of shapes and dtypes that do not fit. Kinds of its own (out of memory) are no wrong input.
        if type(error) is not RuntimeError or is_out_of_memory(error):
            raise
        received = f"images of shape {tuple(images.shape)}, {images.dtype} on {images.device}"
        raise ValueError(f"forward_func cannot take {received}: {error}") from error


def _check_output(output: Any, images: Tensor) -> None:
    if not isinstance(output, Tensor):
        raise TypeError(
            f"forward_func must return a tensor, received {type(output).__name__}; "
            "wrap it, for instance as lambda x: model(x).logits"
        )
    if output.ndim == 0 or len(output) != len(images):
        raise ValueError(
            f"forward_func must give one output per example: {tuple(output.shape)} for {len(images)} images"
        )
    if output.dtype == torch.bool or not output.is_floating_point():
        raise ValueError(
            f"forward_func must give floating point outputs that can be differentiated, received {output.dtype}"
        )
