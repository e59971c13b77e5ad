r"""Image classifiers: the convolutional network of Dombrowski et al. (2024), and a residual one that judges it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["ConvClassifier", "ResidualClassifier"]


class ConvClassifier(nn.Module):
    r"""Blocks of two 3×3 convolutions and a 2×2 max-pool, then linear layers; gives logits.

    The defaults are the paper's network for MNIST (section 4.1): convolutions 16-32 and 64-64, linear 512-256-10,
    images in [0, 1] as they are. Convolutions are not padded.

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
        logits: Tensor = self.head(self.features(x))
        return logits


class ResidualClassifier(nn.Module):
    r"""A small pre-activation residual network with batch norm and average pooling; gives logits.

    It shares no kind of layer but the convolution with :class:`ConvClassifier`, so what fools one need not fool the
    other: an oracle.

    Args:
        in_channels: Channels of an image.
        widths: Channels of each residual block; all but the first halve height and width.
        num_classes: Number of logits.
    """

    def __init__(self, in_channels: int = 1, widths: Sequence[int] = (16, 32, 64), num_classes: int = 10) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = widths[0]
        for number, width in enumerate(widths):
            blocks.append(_ResidualBlock(channels, width, stride=1 if number == 0 else 2))
            channels = width
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 3, padding=1),
            *blocks,
            nn.BatchNorm2d(channels),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        r"""Images (N, C, H, W) to logits (N, ``num_classes``)."""
        logits: Tensor = self.net(x)
        return logits


class _ResidualBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride)
        self.branch = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.SiLU(),
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.SiLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shortcut(x) + self.branch(x)
        return out
