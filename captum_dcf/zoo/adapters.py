r"""Models of the package as the generators of a search; imported by name, when such a model is loaded."""

from __future__ import annotations

import normflows as nf

from captum_dcf.generators.autoencoder import AutoencoderGenerator
from captum_dcf.generators.flow import NormalizingFlowGenerator
from captum_dcf.models.autoencoder import ConvAutoencoder

__all__ = ["autoencoder_generator", "point_flow_generator"]


def autoencoder_generator(model: ConvAutoencoder) -> AutoencoderGenerator:
    r"""An autoencoder of images in [0, 1] as approximate coordinates."""
    return AutoencoderGenerator(model.encoder, model.decoder)


def point_flow_generator(flow: nf.NormalizingFlow) -> NormalizingFlowGenerator:
    r"""A flow over points (N, D) without bounds as exact coordinates."""
    return NormalizingFlowGenerator(flow, data_range=None)
