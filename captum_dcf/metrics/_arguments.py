r"""Checks and conversions of the data that metrics are given."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_images", "check_same_shape", "class_indices", "in_common_dtype", "result_dtype"]


def check_images(**images: Any) -> None:
    r"""Refuses what is no batch of images, or of features of them, in floating point.

    Args:
        images: Tensors (N, ...), by the names that errors call them.

    Raises:
        TypeError: One is not a tensor, or its values are not floating point.
        ValueError: One has no batch dimension.
    """
    for name, value in images.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, received {type(value).__name__}")
        if not value.is_floating_point():
            # Differences of unsigned integers wrap around.
            raise TypeError(f"{name} must be floating point, received {value.dtype}")
        if value.dim() < 2:
            raise ValueError(f"{name} must have a batch dimension, as in (N, C, H, W), received {tuple(value.shape)}")


def check_same_shape(**images: Tensor) -> None:
    r"""Refuses what :func:`check_images` refuses, and a ValueError with all shapes unless they are the same."""
    check_images(**images)
    shapes = [tuple(value.shape) for value in images.values()]
    if len(set(shapes)) > 1:
        raise ValueError(f"{' and '.join(images)} must have the same shape, received {' and '.join(map(str, shapes))}")


def result_dtype(*images: Tensor) -> torch.dtype:
    r"""The dtype in which metrics reckon and answer: that of the images, of several the wider, at least float32.

    In half precision the sum over a larger image is infinite.
    """
    dtype = torch.float32
    for value in images:
        dtype = torch.promote_types(dtype, value.dtype)
    return dtype


def in_common_dtype(*images: Tensor) -> list[Tensor]:
    r"""The same values in the dtype of :func:`result_dtype`."""
    dtype = result_dtype(*images)
    return [value.to(dtype) for value in images]


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
