r"""The shipped architectures: what sizes they take, and what they give."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_dcf.models.autoencoder import ConvAutoencoder
from captum_dcf.models.classifier import ConvClassifier, ConvRegressor, ResidualClassifier
from captum_dcf.models.gan import ConvGAN
from captum_dcf.models.glow import glow
from captum_dcf.models.vae import ConvVAE


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="divisible by 4, received 6×8"):
        ConvAutoencoder((1, 6, 8))
    with pytest.raises(ValueError, match="divisible by 4, received 8×6"):
        glow((1, 8, 6), [1, 1], [4, 4])


def test_a_level_without_a_width_is_refused():
    with pytest.raises(ValueError, match=r"received \[1, 1\] and \[4\]"):
        glow((1, 8, 8), [1, 1], [4])


@pytest.mark.parametrize("kind", [ConvAutoencoder, ConvVAE, ConvGAN])
@pytest.mark.parametrize(("shape", "channels"), [((1, 8, 12), [4, 5]), ((3, 4, 4), [4]), ((2, 24, 16), [4, 5, 6])])
def test_images_have_the_shape_of_those_they_are_decoded_from(
    kind: type[nn.Module], shape: tuple[int, int, int], channels: list[int]
):
    model, images = kind(shape, 3, channels), torch.rand(2, *shape)
    decoded = model(images)
    assert decoded.shape == images.shape
    assert ((decoded > 0) & (decoded < 1)).all()
    assert model.encoder(images).shape == (2, 3)


@pytest.mark.parametrize("kind", [ConvAutoencoder, ConvVAE, ConvGAN])
def test_more_convolutions_than_halvings_are_refused(kind: type[nn.Module]):
    with pytest.raises(ValueError, match=r"divisible by 8, received 28×28.* 24×24 or 32×32"):
        kind((1, 28, 28), 3, [4, 5, 6])
    with pytest.raises(ValueError, match=r"received \[\]"):
        kind((1, 28, 28), 3, [])


def test_the_encoder_of_a_vae_gives_the_mean_of_its_posterior():
    model, images = ConvVAE((1, 8, 8), 3, [4]), torch.rand(2, 1, 8, 8)
    mean, log_variance = model.posterior(images)
    torch.testing.assert_close(mean, model.encoder(images))
    assert log_variance.shape == mean.shape
    assert not torch.allclose(mean, log_variance)
    for beta in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"beta must be positive, received {beta}"):
            ConvVAE((1, 8, 8), 3, [4], beta)


def test_a_discriminator_keeps_rows_apart():
    # A penalty on its gradient at each image asks for it.
    model, images = ConvGAN((1, 8, 8), 3, [4]).train(), torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(model.discriminator(images)[:1], model.discriminator(images[:1]))


def test_a_classifier_takes_images_that_are_not_square_and_refuses_what_does_not_fit():
    model = ConvClassifier(3, (12, 20), [[4, 5]], [6], num_classes=2)
    assert model(torch.rand(2, 3, 12, 20)).shape == (2, 2)
    with pytest.raises(ValueError, match="9×20 pixels are too small for 2 blocks"):
        ConvClassifier(1, (9, 20))


def test_a_regressor_speaks_in_the_units_of_its_labels():
    model = ConvRegressor(in_channels=1, image_size=8, blocks=[[4, 5]], hidden=[6]).eval()
    images, before = torch.rand(5, 1, 8, 8), torch.tensor([1.0, 2.0, 6.0])
    values = model(images)
    model.set_units(before)
    torch.testing.assert_close(model(images), 3 + values * before.std(correction=0))
    other = ConvRegressor(in_channels=1, image_size=8, blocks=[[4, 5]], hidden=[6]).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images), model(images))


@pytest.mark.parametrize("labels", [[3, 3], [1.0, float("nan")], [1.0, float("inf")]])
def test_labels_without_a_unit_are_refused(labels: list[float]):
    model = ConvRegressor(in_channels=1, image_size=8, blocks=[[4, 5]], hidden=[6])
    with pytest.raises(ValueError, match=f"finite values that differ, received {float(labels[0])}|nan"):
        model.set_units(torch.tensor(labels))


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
