r"""A small convolutional autoencoder: coordinates that are only approximate, and the judge of IM1 and IM2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["ConvAutoencoder"]


class ConvAutoencoder(nn.Module):
    r"""Two strided convolutions and a linear layer to the latent, and the same way back; images in [0, 1].

    Args:
        image_shape: (channels, height, width), height and width divisible by four.
        latent: Number of latent dimensions.
        channels: Output channels of the two convolutions.
    """

    def __init__(
        self, image_shape: Sequence[int] = (1, 28, 28), latent: int = 32, channels: Sequence[int] = (16, 32)
    ) -> None:
        super().__init__()
        in_channels, height, width = image_shape
        if height % 4 or width % 4:
            raise ValueError(f"height and width must be divisible by 4, received {height}×{width}")
        first, second = channels
        small = (second, height // 4, width // 4)
        size = torch.Size(small).numel()
        self.encoder = nn.Sequential(
            nn.Conv2d(in_channels, first, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(size, latent),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, size),
            nn.ReLU(),
            nn.Unflatten(1, small),
            nn.ConvTranspose2d(second, first, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(first, in_channels, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        r"""Images (N, C, H, W) to their reconstructions."""
        reconstructions: Tensor = self.decoder(self.encoder(x))
        return reconstructions
