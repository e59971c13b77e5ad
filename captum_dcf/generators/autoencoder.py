r"""An encoder and a decoder as approximate coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from captum_dcf.generators.base import Generator

__all__ = ["AutoencoderGenerator"]


class AutoencoderGenerator(Generator):
    r"""Any pair of encoder and decoder networks as a generator; ``decode(encode(x))`` is only near x.

    The networks are given copies, so they may write into their inputs.

    Args:
        encoder: Images (N, C, H, W) to latents, (N, D) or of another shape.
        decoder: Latents, as the encoder gives them, to images (N, C, H, W).
        data_range: Least and greatest pixel value, None for no bounds.
        latent_shape: Shape of one latent, such as (C, H, W), where it is not (D,).

    Raises:
        TypeError: A network is no ``torch.nn.Module``.
    """

    exact = False

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        data_range: tuple[float, float] | None = (0.0, 1.0),
        latent_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        for name, network in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(network, nn.Module):
                raise TypeError(f"{name} must be a torch.nn.Module, received {type(network).__name__}")
        self.encoder = encoder
        self.decoder = decoder
        self.data_range = data_range
        self.latent_shape = None if latent_shape is None else tuple(latent_shape)

    def encode(self, x: Tensor) -> Tensor:
        r"""Images (N, C, H, W) to latents (N, D).

        Raises:
            TypeError: The encoder gives no tensor, such as mean and variance.
            ValueError: Its latents have more than one dimension, and there is no ``latent_shape``.
        """
        latents = _checked("encoder", self.encoder(x.clone()))
        if self.latent_shape is None and latents.ndim > 2:
            shape = tuple(latents.shape[1:])
            raise ValueError(f"the encoder's latents are not (N, D): give AutoencoderGenerator latent_shape={shape}")
        return latents if self.latent_shape is None else latents.flatten(1)

    def decode(self, z: Tensor) -> Tensor:
        r"""Latents (N, D) to images (N, C, H, W).

        Raises:
            TypeError: The decoder gives no tensor.
        """
        latents = z if self.latent_shape is None else z.reshape(len(z), *self.latent_shape)
        return _checked("decoder", self.decoder(latents.clone()))


def _checked(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"the {name} must return a tensor, received {type(value).__name__}: wrap it, to return the tensor"
        )
    return value
