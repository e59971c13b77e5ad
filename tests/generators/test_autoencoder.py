r"""Encoders and decoders as generators."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import images

from captum_dcf.generators import AutoencoderGenerator


def test_an_autoencoder_may_have_latents_of_any_shape():
    encoder, decoder = nn.Conv2d(1, 2, 2, stride=2), nn.ConvTranspose2d(2, 1, 2, stride=2)
    x = images(3)
    with pytest.raises(ValueError, match=r"latent_shape=\(2, 2, 2\)"):
        AutoencoderGenerator(encoder, decoder).encode(x)
    generator = AutoencoderGenerator(encoder, decoder, latent_shape=(2, 2, 2))
    assert generator.encode(x).shape == (3, 8)
    torch.testing.assert_close(generator(x), decoder(encoder(x)))


def test_latents_that_are_matrices_need_latent_shape_too():
    generator = AutoencoderGenerator(nn.Flatten(2), nn.Identity())
    with pytest.raises(ValueError, match=r"latent_shape=\(1, 16\)"):
        generator.encode(images(3))


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.flatten(1), x.flatten(1)


@pytest.mark.parametrize("latent_shape", [None, (4, 4)])
def test_networks_that_give_no_tensor_are_named(latent_shape: tuple[int, ...] | None):
    with pytest.raises(TypeError, match=r"encoder must return a tensor, received tuple"):
        AutoencoderGenerator(Pair(), nn.Identity(), latent_shape=latent_shape).encode(images(3))
    with pytest.raises(TypeError, match=r"decoder must return a tensor, received tuple"):
        AutoencoderGenerator(nn.Flatten(), Pair(), latent_shape=latent_shape).decode(torch.zeros(3, 16))


@pytest.mark.parametrize(
    ("networks", "says"),
    [((None, nn.Identity()), "encoder .* received NoneType"), ((nn.Flatten(), len), "decoder .* received builtin")],
)
def test_what_is_no_network_is_refused(networks: tuple[object, object], says: str):
    with pytest.raises(TypeError, match=says):
        AutoencoderGenerator(*networks)
