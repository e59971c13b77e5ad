r"""Models of the package as the generators of a search; imported by name, when such a model is loaded."""

from __future__ import annotations

import normflows as nf

from captum_dcf.generators.autoencoder import AutoencoderGenerator
from captum_dcf.generators.flow import NormalizingFlowGenerator
from captum_dcf.models.autoencoder import ConvAutoencoder
from captum_dcf.models.gan import ConvGAN

__all__ = ["autoencoder_generator", "point_flow_generator"]


def autoencoder_generator(model: ConvAutoencoder | ConvGAN) -> AutoencoderGenerator:
    r"""Approximate coordinates of images in [0, 1]: an autoencoder, a VAE by the mean of its posterior, or a GAN.

    The search's step is a share of √D, the length of a standard normal latent, which those of a VAE and a GAN are near.
    """
    return AutoencoderGenerator(model.encoder, model.decoder)


def point_flow_generator(flow: nf.NormalizingFlow) -> NormalizingFlowGenerator:
    r"""A flow over points (N, D) without bounds as exact coordinates."""
    return NormalizingFlowGenerator(flow, data_range=None)
