r"""A convolutional GAN (DCGAN; Radford et al., 2016) with an encoder beside it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from captum_dcf.models.autoencoder import conv_decoder, conv_encoder

__all__ = ["ConvGAN"]


class ConvGAN(nn.Module):
    r"""A generator of images in [0, 1] from standard normal latents, its discriminator, and an encoder that inverts it.

    Args:
        image_shape: (channels, height, width); height and width divisible by 2 to the number of convolutions.
        latent: Number of latent dimensions.
        channels: Channels of each convolution, finest first; each halves height and width.

    Attributes:
        latent: Number of latent dimensions.
        decoder: The generator: latents (N, D) to images (N, C, H, W). It has batch norm.
        encoder: Images (N, C, H, W) to latents (N, D).
        discriminator: Images (N, C, H, W) to logits (N, 1), positive for what looks real. It has no batch norm: its
            gradient at an image is penalised, and must not depend on the other images of the batch.

    Raises:
        ValueError: The image cannot be halved once per convolution, or there is no convolution.
    """

    def __init__(
        self, image_shape: Sequence[int] = (1, 28, 28), latent: int = 32, channels: Sequence[int] = (32, 64)
    ) -> None:
        super().__init__()
        self.latent = latent
        self.decoder = conv_decoder(image_shape, latent, channels, normalise=True)
        self.encoder = conv_encoder(image_shape, latent, channels)
        self.discriminator = conv_encoder(image_shape, 1, channels, partial(nn.LeakyReLU, 0.2))

    def forward(self, x: Tensor) -> Tensor:
        r"""Images (N, C, H, W) to their reconstructions."""
        reconstructions: Tensor = self.decoder(self.encoder(x))
        return reconstructions
