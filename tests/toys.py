r"""Models and generators small enough to be reckoned with by hand; images are 1×4×4 where nothing else is said."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from captum_dcf import Generator


class RowClassifier(nn.Module):
    r"""Three logits: ten times the mean of the first, second and third row of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 3)
        with torch.no_grad():
            self.linear.weight.copy_(2.5 * torch.eye(4)[:3].repeat_interleave(4, dim=1))
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


class Rotated(Generator):
    r"""Coordinates are the pixels less one half, turned by a fixed orthogonal matrix."""

    exact = True
    data_range = (0.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        gaussian = torch.randn(16, 16, generator=torch.Generator().manual_seed(5))
        self.turn = nn.Parameter(torch.linalg.qr(gaussian).Q)

    def encode(self, x: Tensor) -> Tensor:
        return (x - 0.5).flatten(1) @ self.turn

    def decode(self, z: Tensor) -> Tensor:
        return (z @ self.turn.T).view(len(z), 1, 4, 4) + 0.5


def images(count: int, seed: int = 0) -> Tensor:
    r"""Images between 0.3 and 0.6, of which :class:`RowClassifier` is sure of none."""
    return 0.3 + 0.3 * torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


class Mnist(NamedTuple):
    r"""The bundled digits and the shipped models."""

    images: Tensor
    labels: Tensor
    classifier: nn.Module
    generator: Generator
