r"""A convolutional variational autoencoder (Kingma and Welling, 2014): latents that are close to standard normal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from captum_dcf.models.autoencoder import ConvAutoencoder

__all__ = ["ConvVAE"]


class ConvVAE(ConvAutoencoder):
    r"""An autoencoder whose encoder gives a normal distribution of latents, its posterior; images in [0, 1].

    ``encoder`` gives the mean of the posterior and ``decoder`` the mean of the pixels; neither draws noise.

    Args:
        image_shape: (channels, height, width); height and width divisible by 2 to the number of convolutions.
        latent: Number of latent dimensions. Those that the data do not need stay standard normal, and the decoder
            learns to ignore them.
        channels: Output channels of each convolution; each halves height and width.
        beta: Weight of the divergence from the standard normal prior in training. With 1, the objective is the
            evidence lower bound; with more, latents are nearer to the prior and reconstructions coarser (Higgins et
            al., 2017).

    Raises:
        ValueError: The image cannot be halved once per convolution, there is no convolution, or ``beta`` is not
            positive.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (1, 28, 28),
        latent: int = 32,
        channels: Sequence[int] = (32, 64),
        beta: float = 1.0,
    ) -> None:
        super().__init__(image_shape, latent, channels)
        if not beta > 0:
            raise ValueError(f"beta must be positive, received {beta!r}")
        self.beta = beta
        features = cast(nn.Linear, self.encoder[-1]).in_features
        self.log_variance = nn.Linear(features, latent)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Images (N, C, H, W) to mean and log-variance of their latents, both (N, D)."""
        features = self.encoder[:-1](x)
        return self.encoder[-1](features), self.log_variance(features)
