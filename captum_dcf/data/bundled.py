r"""What data sets with a bundled sample have in common: the file of the sample, and what may be asked of the source."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["as_images", "check_request", "read_bundled"]


def read_bundled(name: str) -> dict[str, npt.NDArray[np.generic]]:
    r"""The arrays of a bundled ``.npz`` file by name."""
    with as_file(files("captum_dcf.data") / name) as path, np.load(path) as archive:
        return {key: archive[key] for key in archive.files}


def as_images(pixels: npt.NDArray[np.generic]) -> Tensor:
    r"""Bytes (N, H, W) or (N, H, W, 3) as images, float32 (N, C, H, W) in [0, 1]."""
    images = torch.from_numpy(pixels)
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)
    return images.contiguous().float().div(255)


def check_request(
    name: str, split: str | None, image_shape: Sequence[int] | None, accepted: tuple[int, int, int]
) -> None:
    r"""Refuses a request without a split, or for another shape than that of the data set.

    Raises:
        ValueError: It is such a request.
    """
    if split is None:
        raise ValueError(f"split must be 'train' or 'test' for {name}, received None")
    if image_shape is not None and tuple(image_shape) != accepted:
        raise ValueError(f"images of {name} have the shape {accepted}, received image_shape {tuple(image_shape)}")
