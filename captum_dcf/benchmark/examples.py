r"""The images of one shard: read, checked, and put together where they have one shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["Batch", "read"]

# What a tensor of labels holds.
LARGEST = 2**63


@dataclass(frozen=True)
class Batch:
    r"""Examples of one shape.

    Attributes:
        numbers: Their places in the data set.
        inputs: x, (N, ...).
        labels: Their classes, int64 (N,), or values, float32 (N,).
    """

    numbers: list[int]
    inputs: Tensor
    labels: Tensor

    def halves(self) -> Iterator[Batch]:
        r"""Its first and its second half."""
        middle = len(self.numbers) // 2
        for part in (slice(None, middle), slice(middle, None)):
            yield Batch(self.numbers[part], self.inputs[part], self.labels[part])


def read(images: Dataset[Any], numbers: Iterable[int], device: torch.device) -> tuple[list[Batch], dict[int, str]]:
    r"""Reads examples.

    Returns:
        The examples by their shapes, most often one batch, and for those that cannot be read or have NaN or infinite
        pixels what is wrong.

    Raises:
        TypeError: The data set gives something else than floating point images with a class or a value each.
    """
    by_shape: dict[torch.Size, list[tuple[int, Tensor, float]]] = {}
    broken = {}
    for number in numbers:
        # Whatever a data set raises for a damaged file, the other images are to be done.
        try:
            example = images[number]
        except Exception as error:
            broken[number] = f"cannot be read: {type(error).__name__}: {error}"
            continue
        image, label = _checked(example, number)
        if image.isfinite().all():
            by_shape.setdefault(image.shape, []).append((number, image, label))
        else:
            broken[number] = "has NaN or infinite pixels"
    return [_batch(examples, device) for examples in by_shape.values()], broken


def _checked(example: Any, number: int) -> tuple[Tensor, float]:
    try:
        image, label = example
    except (TypeError, ValueError) as error:
        raise TypeError(f"a data set must give pairs of an image and its label: example {number} does not") from error
    label = label.item() if hasattr(label, "item") else label
    if isinstance(label, bool) or not isinstance(label, (int, float)) or not abs(label) < LARGEST:
        raise TypeError(
            f"labels must be classes (int) or finite values (float), received {label!r} for example {number}"
        )
    if not isinstance(image, Tensor) or not image.is_floating_point():
        received = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"images must be floating point tensors, received {received} for example {number}")
    return image, label


def _batch(examples: list[tuple[int, Tensor, float]], device: torch.device) -> Batch:
    numbers, images, labels = zip(*examples)
    return Batch(list(numbers), torch.stack(images).to(device), torch.tensor(labels, device=device))
