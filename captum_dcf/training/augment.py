r"""Augmentations: random changes of a batch of training images that leave their labels true."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["shift_two_pixels"]


def shift_two_pixels(images: Tensor) -> Tensor:
    r"""Images (N, C, H, W), all shifted alike by up to two pixels in each direction; what comes in is 0.

    One random shift per batch costs a slice; over an epoch every image sees many of them.
    """
    height, width = images.shape[-2:]
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    top, left = torch.randint(0, 5, (2,)).tolist()
    return padded[..., top : top + height, left : left + width]
