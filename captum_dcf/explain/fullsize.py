r"""Counterfactuals at the size of their files, where a generator makes images of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from captum_dcf.data.files import read_images
from captum_dcf.explain.shown import Shown, resized

__all__ = ["at_full_size", "shown_at_full_size"]


def at_full_size(path: Path, size: tuple[int, int], change: Tensor) -> tuple[Tensor, Tensor]:
    r"""An image file and its counterfactual at a size, both (1, C, H, W) in [0, 1].

    The counterfactual is the image plus the change x' - x, resized bilinearly, put into the range. What the generator's
    size does not show of the image, its fine detail, stays as it is. Interpolation smooths: of a change of single
    pixels a part is lost, so that the model has to be asked again.

    Args:
        path: The image.
        size: Its height and width.
        change: x' - x at the size of the generator, (C, h, w), in shares of the range of pixels.
    """
    image = read_images([path], (len(change), *size))
    return image, (image + resized(change.cpu().float()[None], size)).clamp(0, 1)


def shown_at_full_size(shown: Shown, sizes: Sequence[tuple[int, int]], image: Tensor) -> Shown:
    r"""The model as it is shown images of the size of their files.

    As they are, if it takes the generator's size and theirs, too; resized otherwise, to the size it was shown before.

    Args:
        shown: The model as it is shown images of the generator.
        sizes: Height and width of the files.
        image: One image in [0, 1], (1, C, h, w), of the generator's size, to ask about.
    """
    full = replace(shown, data_range=None)
    if shown.size is not None:
        return full
    takes = all(full.takes(resized(image, size)) is None for size in {min(sizes), max(sizes)})
    return full if takes else replace(full, size=(image.shape[2], image.shape[3]))
