from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from toys import Rotated, images

from captum_dcf import DiffeomorphicCounterfactual, Generator
from captum_dcf.metrics import l1, l2_input, l2_latent, l2_latent_encoded, sparsity, ssim


def test_distances_by_hand():
    x = torch.zeros(2, 1, 2, 2)
    changed = torch.tensor([[[[3.0, -4.0], [0.0, 0.0]]], [[[0.0, 0.0], [0.0, 1.0]]]])
    assert l1(x, changed).tolist() == [7.0, 1.0]
    assert l2_input(x, changed).tolist() == [5.0, 1.0]
    assert sparsity(x, changed).tolist() == [0.5, 0.75]


def test_orthogonal_latents_keep_distances():
    x, changed = images(5), images(5, seed=1)
    torch.testing.assert_close(l2_latent_encoded(Rotated(), x, changed), l2_input(x, changed))


def test_latent_distance_follows_the_scale_of_the_latents():
    generator = Rotated()
    with torch.no_grad():
        generator.turn.mul_(3)
    x, changed = images(5), images(5, seed=1)
    torch.testing.assert_close(l2_latent_encoded(generator, x, changed), 3 * l2_input(x, changed))


def test_many_images_are_encoded_in_few_batches_of_constant_layers():
    batches, inside = [], []

    class Counting(Rotated):
        @contextmanager
        def constant(self):
            inside.append(True)
            yield
            inside.pop()

        def encode(self, x):
            assert inside
            batches.append(len(x))
            return super().encode(x)

    x, changed = images(300), images(300, seed=1)
    torch.testing.assert_close(l2_latent_encoded(Counting(), x, changed), l2_input(x, changed))
    assert sum(batches) == 600
    assert max(batches) < 300
    assert len(batches) <= 6


def test_what_a_search_moved_and_what_its_image_is_encoded_to_differ_by_the_clamp():
    class Brightest(Generator):
        exact, data_range = True, (0.0, 1.0)

        def encode(self, x):
            return x.flatten(1)

        def decode(self, z):
            return z.view(-1, 1, 2, 2)

    # A model whose answer is the first pixel, which has to go beyond the range for a score of .9.
    method = DiffeomorphicCounterfactual(lambda x: 2 * x[:, 0, 0, 0] - 1, Brightest(), output="binary_logit")
    result = method.counterfactual(torch.full((2, 1, 2, 2), 0.3), target=1, confidence=0.7, max_steps=20)
    moved = l2_latent(result.start_latents, result.end_latents)
    torch.testing.assert_close(moved, (result.end_latents - result.start_latents).norm(dim=1))
    encoded = l2_latent_encoded(Brightest(), result.inputs, result.counterfactuals)
    assert (encoded <= moved + 1e-6).all()
    clamped = result.end_latents.clamp(0, 1)
    torch.testing.assert_close(encoded, (clamped - result.start_latents).norm(dim=1), rtol=1e-3, atol=1e-3)


def test_latents_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 9\) and \(2, 8\)"):
        l2_latent(torch.zeros(2, 9), torch.zeros(2, 8))


def test_one_changed_channel_is_a_changed_pixel():
    x = torch.zeros(1, 3, 2, 2)
    changed = x.clone()
    changed[0, 1, 0, 0] = 0.5
    changed[0, 2, 1, 1] = 0.4 / 255
    assert sparsity(x, changed).tolist() == [0.75]
    assert sparsity(x, changed, tolerance=0.0).tolist() == [0.5]
    # The largest change of a channel counts, not their mean, 0.5 / 3.
    assert sparsity(x, changed, tolerance=0.3).tolist() == [0.75]


def test_sparsity_of_a_pixel_that_is_nan_is_nan():
    x = torch.zeros(3, 2, 2, 2)
    changed = x.clone()
    changed[1, 0, 0, 0] = torch.nan
    changed[2, 0, 0, 0] = torch.inf
    torch.testing.assert_close(sparsity(x, changed), torch.tensor([1.0, torch.nan, 0.75]), equal_nan=True)


def test_features_are_pixels_of_their_own():
    assert sparsity(torch.zeros(1, 4), torch.tensor([[1.0, 0.0, 0.0, 0.0]])).tolist() == [0.75]


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_scikit_image(channels):
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    x = torch.rand(3, channels, 20, 24)
    changed = (x + 0.1 * torch.randn_like(x)).clamp(0, 1)
    expected = [
        structural_similarity(
            a.double().numpy(),
            b.double().numpy(),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(x, changed)
    ]
    np.testing.assert_allclose(ssim(x, changed).numpy(), expected, rtol=1e-4)


def test_ssim_of_flat_images_by_hand():
    # Without variance the luminance is left, with c1 = 1e-4: 1e-4 / (1e-4 + 1e-4), and of equal ones 1.
    dark, grey = torch.zeros(2, 1, 11, 11), torch.full((2, 1, 11, 11), 0.01)
    torch.testing.assert_close(ssim(dark, grey), torch.full((2,), 0.5))
    torch.testing.assert_close(ssim(255 * dark, 255 * grey, data_range=255.0), torch.full((2,), 0.5))


def test_ssim_does_not_lose_its_digits_far_from_zero():
    x = 1000 + torch.rand(3, 1, 16, 16, dtype=torch.float64)
    changed = x + 0.3 * torch.rand_like(x)
    in_single = ssim(x.float(), changed.float()).double()
    torch.testing.assert_close(in_single, ssim(x, changed), rtol=0, atol=2e-3)


def test_ssim_of_equal_images_and_of_one_image():
    x = torch.rand(1, 1, 16, 16)
    assert ssim(x, x).shape == (1,)
    torch.testing.assert_close(ssim(x, x), torch.ones(1))


@pytest.mark.parametrize("distance", [l1, l2_input, sparsity, ssim])
def test_other_shape_is_refused(distance):
    with pytest.raises(ValueError, match=r"\(2, 1, 16, 16\) and \(1, 1, 16, 16\)"):
        distance(torch.zeros(2, 1, 16, 16), torch.zeros(1, 1, 16, 16))


def test_image_smaller_than_the_window_is_refused():
    with pytest.raises(ValueError, match="at least 11"):
        ssim(torch.zeros(1, 1, 10, 28), torch.zeros(1, 1, 10, 28))


@pytest.mark.parametrize("distance", [l1, l2_input, sparsity, ssim])
def test_grey_levels_in_bytes_are_refused(distance):
    # Their differences would wrap around.
    bytes_ = torch.full((1, 1, 16, 16), 5, dtype=torch.uint8)
    with pytest.raises(TypeError, match=r"floating point, received torch\.uint8"):
        distance(bytes_, bytes_ - 1)


@pytest.mark.parametrize("distance", [l1, l2_input, sparsity, ssim])
def test_no_image_has_no_distance(distance):
    assert distance(torch.zeros(0, 1, 16, 16), torch.zeros(0, 1, 16, 16)).shape == (0,)
