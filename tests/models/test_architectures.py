r"""The shipped architectures: what sizes they take, and what they give."""

from __future__ import annotations

import pytest
import torch

from captum_dcf.models.autoencoder import ConvAutoencoder
from captum_dcf.models.classifier import ResidualClassifier
from captum_dcf.models.glow import glow


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="divisible by 4, received 6×8"):
        ConvAutoencoder((1, 6, 8))
    with pytest.raises(ValueError, match="divisible by 4, received 8×6"):
        glow((1, 8, 6), [1, 1], [4, 4])


def test_a_level_without_a_width_is_refused():
    with pytest.raises(ValueError, match=r"received \[1, 1\] and \[4\]"):
        glow((1, 8, 8), [1, 1], [4])


@pytest.mark.parametrize("shape", [(1, 8, 12), (3, 4, 4)])
def test_an_autoencoder_gives_images_of_the_shape_it_takes(shape: tuple[int, int, int]):
    images = torch.rand(2, *shape)
    assert ConvAutoencoder(shape, latent=3)(images).shape == images.shape


@pytest.mark.parametrize("factor_out", [True, False])
def test_a_flow_has_as_many_latents_as_pixels(factor_out: bool):
    flow, images = glow((3, 8, 8), [1, 1], [4, 4], factor_out=factor_out), torch.rand(5, 3, 8, 8)
    latents, _ = flow.inverse_and_log_det(images)
    assert len(latents) == (2 if factor_out else 1)
    assert sum(latent[0].numel() for latent in latents) == images[0].numel()
    torch.testing.assert_close(flow.forward_and_log_det(latents)[0], images, rtol=0, atol=1e-4)


def test_a_residual_classifier_takes_images_of_any_size():
    model = ResidualClassifier(3, (4, 8), num_classes=5).eval()
    for size in (8, 13):
        assert model(torch.rand(2, 3, size, size)).shape == (2, 5)
