r"""Image classifiers: the convolutional network of Dombrowski et al. (2024), and a residual one that judges it.

A regressor has the body of the former.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ConvClassifier", "ConvRegressor", "ResidualClassifier"]


class ConvClassifier(nn.Module):
    r"""Blocks of two 3×3 convolutions and a 2×2 max-pool, then linear layers; gives logits.

    The defaults are the paper's network for MNIST (section 4.1): convolutions 16-32 and 64-64, linear 512-256-10,
    images in [0, 1] as they are. Convolutions are not padded.

    Args:
        in_channels: Channels of an image.
        image_size: Height and width of an image in pixels; one number where it is square.
        blocks: Output channels of the two convolutions of each block. A block makes a side of s pixels one of
            (s - 4) // 2.
        hidden: Widths of the linear layers before the last.
        num_classes: Number of logits.
        dropout: Share of hidden units left out during training, before each linear layer.

    Raises:
        ValueError: The image is too small for so many blocks.
    """

    def __init__(
        self,
        in_channels: int = 1,
        image_size: int | Sequence[int] = 28,
        blocks: Sequence[Sequence[int]] = ((16, 32), (64, 64)),
        hidden: Sequence[int] = (512, 256),
        num_classes: int = 10,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        features: list[nn.Module] = []
        channels, side = in_channels, min(height, width)
        for first, second in blocks:
            features += [nn.Conv2d(channels, first, 3), nn.ReLU(), nn.Conv2d(first, second, 3), nn.ReLU()]
            features.append(nn.MaxPool2d(2))
            channels, side = second, (side - 4) // 2
        if side < 1:
            raise ValueError(f"images of {height}×{width} pixels are too small for {len(blocks)} blocks")
        self.features = nn.Sequential(*features, nn.Flatten())
        with torch.no_grad():
            width = self.features(torch.zeros(1, in_channels, height, width)).shape[1]
        head: list[nn.Module] = []
        for next_width in hidden:
            head += [nn.Dropout(dropout), nn.Linear(width, next_width), nn.ReLU()]
            width = next_width
        self.head = nn.Sequential(*head, nn.Linear(width, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        r"""Images (N, C, H, W) to logits (N, ``num_classes``)."""
        logits: Tensor = self.head(self.features(x))
        return logits


class ConvRegressor(nn.Module):
    r"""A :class:`ConvClassifier` of one output, in the units of the labels it was trained with.

    Args:
        arguments: Those of :class:`ConvClassifier`, but for ``num_classes``.

    Attributes:
        mean: Mean of the training labels, 0 before training.
        deviation: Their standard deviation, 1 before training.

    Raises:
        ValueError: The image is too small for so many blocks.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.network = ConvClassifier(**{**arguments, "num_classes": 1})
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("deviation", torch.tensor(1.0))

    def set_units(self, labels: Tensor) -> None:
        r"""Takes mean and deviation from the labels (N,) of the training set.

        Raises:
            ValueError: They are not finite, or all the same.
        """
        mean, deviation = labels.double().mean(), labels.double().std(correction=0)
        if not (mean.isfinite() and deviation.isfinite() and deviation > 0):
            raise ValueError(
                f"a regressor needs finite values that differ, received {float(labels.min())} to {float(labels.max())}"
            )
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    def forward(self, x: Tensor) -> Tensor:
        r"""Images (N, C, H, W) to values (N,)."""
        values: Tensor = self.mean + self.deviation * self.network(x)[:, 0]
        return values


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
