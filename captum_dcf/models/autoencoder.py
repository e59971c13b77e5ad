r"""Convolutional encoders and decoders, and the autoencoder of one of each: the judge of IM1 and IM2 too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from captum_dcf.models.halving import check_halves

__all__ = ["ConvAutoencoder", "conv_decoder", "conv_encoder"]


class ConvAutoencoder(nn.Module):
    r"""Strided convolutions and a linear layer to the latent, and the same way back; images in [0, 1].

    Args:
        image_shape: (channels, height, width); height and width divisible by 2 to the number of convolutions.
        latent: Number of latent dimensions.
        channels: Output channels of each convolution; each halves height and width.

    Raises:
        ValueError: The image cannot be halved once per convolution, or there is no convolution.
    """

    def __init__(
        self, image_shape: Sequence[int] = (1, 28, 28), latent: int = 32, channels: Sequence[int] = (16, 32)
    ) -> None:
        super().__init__()
        self.encoder = conv_encoder(image_shape, latent, channels)
        self.decoder = conv_decoder(image_shape, latent, channels)

    def forward(self, x: Tensor) -> Tensor:
        r"""Images (N, C, H, W) to their reconstructions."""
        reconstructions: Tensor = self.decoder(self.encoder(x))
        return reconstructions


def conv_encoder(
    image_shape: Sequence[int], outputs: int, channels: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU
) -> nn.Sequential:
    r"""Images (N, C, H, W) to (N, ``outputs``): 3×3 convolutions of stride 2, and a linear layer.

    Args:
        image_shape: (C, H, W).
        outputs: Number of outputs.
        channels: Output channels of each convolution.
        activation: What follows each convolution.

    Raises:
        ValueError: The image cannot be halved once per convolution, or there is no convolution.
    """
    coarsest = _coarsest(image_shape, channels)
    layers: list[nn.Module] = []
    for before, after in zip((image_shape[0], *channels), channels):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), activation()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(coarsest.numel(), outputs))


def conv_decoder(
    image_shape: Sequence[int], latent: int, channels: Sequence[int], normalise: bool = False
) -> nn.Sequential:
    r"""Latents (N, ``latent``) to images (N, C, H, W) in [0, 1]: a linear layer, and 4×4 convolutions, transposed.

    Args:
        image_shape: (C, H, W).
        latent: Number of latent dimensions.
        channels: Those of :func:`conv_encoder`, finest first.
        normalise: Whether there is batch norm in each hidden layer.

    Raises:
        ValueError: The image cannot be halved once per convolution, or there is no convolution.
    """
    coarsest = _coarsest(image_shape, channels)
    layers: list[nn.Module] = [nn.Linear(latent, coarsest.numel()), nn.Unflatten(1, coarsest)]
    for before, after in zip(reversed(channels), (*reversed(channels[:-1]), image_shape[0])):
        layers += [nn.BatchNorm2d(before), nn.ReLU()] if normalise else [nn.ReLU()]
        layers.append(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1))
    return nn.Sequential(*layers, nn.Sigmoid())


def _coarsest(image_shape: Sequence[int], channels: Sequence[int]) -> torch.Size:
    if not channels:
        raise ValueError(f"channels must have an entry per convolution, received {channels!r}")
    _, height, width = image_shape
    times = len(channels)
    check_halves(height, width, times)
    return torch.Size((channels[-1], height // 2**times, width // 2**times))
