r"""Image classifiers: the convolutional network of Dombrowski et al. (2024), for any image size and number of classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["ConvClassifier"]


class ConvClassifier(nn.Module):
    r"""Blocks of two 3×3 convolutions and a 2×2 max-pool, then linear layers; gives logits.

    The defaults are the paper's network for MNIST (section 4.1): convolutions 16-32 and 64-64, linear 512-256-10, images
    in [0, 1] as they are. Convolutions are not padded.

    Args:
        in_channels: Channels of an image.
        image_size: Height and width of an image in pixels.
        blocks: Output channels of the two convolutions of each block.
        hidden: Widths of the linear layers before the last.
        num_classes: Number of logits.
        dropout: Share of hidden units left out during training, before each linear layer.
    """

    def __init__(
        self,
        in_channels: int = 1,
        image_size: int = 28,
        blocks: Sequence[Sequence[int]] = ((16, 32), (64, 64)),
        hidden: Sequence[int] = (512, 256),
        num_classes: int = 10,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        features: list[nn.Module] = []
        channels = in_channels
        for first, second in blocks:
            features += [nn.Conv2d(channels, first, 3), nn.ReLU(), nn.Conv2d(first, second, 3), nn.ReLU()]
            features.append(nn.MaxPool2d(2))
            channels = second
        self.features = nn.Sequential(*features, nn.Flatten())
        with torch.no_grad():
            width = self.features(torch.zeros(1, in_channels, image_size, image_size)).shape[1]
        head: list[nn.Module] = []
        for next_width in hidden:
            head += [nn.Dropout(dropout), nn.Linear(width, next_width), nn.ReLU()]
            width = next_width
        self.head = nn.Sequential(*head, nn.Linear(width, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        r"""Images (N, C, H, W) to logits (N, ``num_classes``)."""
        return self.head(self.features(x))
