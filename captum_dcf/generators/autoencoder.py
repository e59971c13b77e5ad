r"""An encoder and a decoder as approximate coordinates."""

from __future__ import annotations

from torch import Tensor, nn

from captum_dcf.generators.base import Generator

__all__ = ["AutoencoderGenerator"]


class AutoencoderGenerator(Generator):
    r"""Any pair of encoder and decoder networks as a generator; ``decode(encode(x))`` is only near x.

    Args:
        encoder: Images (N, C, H, W) to latents (N, D).
        decoder: Latents (N, D) to images (N, C, H, W).
        data_range: Least and greatest pixel value, None for no bounds.
    """

    exact = False

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, data_range: tuple[float, float] | None = (0.0, 1.0)
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.data_range = data_range

    def encode(self, x: Tensor) -> Tensor:
        r"""Images (N, C, H, W) to latents (N, D)."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        r"""Latents (N, D) to images (N, C, H, W)."""
        return self.decoder(z)
