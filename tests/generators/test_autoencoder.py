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
