r"""Pixels as coordinates: a search in them is the adversarial baseline of the paper."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_dcf.generators.base import Generator

__all__ = ["Pixels"]


class Pixels(Generator):
    r"""Coordinates are the pixels themselves, so a search finds adversarial examples instead of counterfactuals.

    Args:
        image_shape: Shape of one image, (C, H, W).
        data_range: Least and greatest pixel value, None for no bounds.
    """

    exact = True

    def __init__(self, image_shape: tuple[int, ...], data_range: tuple[float, float] | None = (0.0, 1.0)) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.data_range = data_range

    def encode(self, x: Tensor) -> Tensor:
        r"""Images (N, C, H, W) to rows of pixels (N, C·H·W)."""
        if x.shape[1:] != self.image_shape:
            shape = ", ".join(map(str, ("N", *self.image_shape)))
            raise ValueError(f"images must have the shape ({shape}), received {tuple(x.shape)}")
        return x.flatten(1).clone()

    def decode(self, z: Tensor) -> Tensor:
        r"""Rows of pixels (N, C·H·W) to images (N, C, H, W)."""
        return z.reshape(len(z), *self.image_shape).clone()

    def typical_length(self, z: Tensor) -> Tensor:
        r"""A fiftieth of the length of an image at half its range: in pixels so small a step is already adversarial."""
        low, high = self.data_range or (0.0, 1.0)
        return super().typical_length(z) * torch.as_tensor((high - low) / 100).to(z)
