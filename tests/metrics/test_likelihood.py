from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from toys import Rotated, images

from captum_dcf.generators import Support, measure_support
from captum_dcf.metrics import likelihood_percentile, log_likelihood


class Gaussian(Rotated):
    r"""A standard normal density of the latents; the map is a rotation and a shift, so it is that of the pixels too."""

    def log_prob(self, x):
        return -0.5 * (self.encode(x).square() + math.log(2 * math.pi)).sum(1)


def test_log_likelihood_is_that_of_the_generator():
    from scipy.stats import multivariate_normal

    x = images(7)
    expected = multivariate_normal(np.full(16, 0.5)).logpdf(x.flatten(1).numpy())
    np.testing.assert_allclose(log_likelihood(Gaussian(), x), expected, rtol=1e-5)


def with_support(generator, held_out):
    generator.support = measure_support(generator, held_out)
    return generator


def test_percentile_is_that_of_scipy_between_the_quantiles():
    from scipy.stats import percentileofscore

    x, held_out = images(5), images(400, seed=1)
    generator = with_support(Gaussian(), held_out)
    real = log_likelihood(generator, held_out).numpy()
    expected = [percentileofscore(real, score, kind="mean") for score in log_likelihood(generator, x).numpy()]
    np.testing.assert_allclose(likelihood_percentile(generator, x), expected, atol=1)


def test_extremes():
    best, worst = torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, 1, 4, 4)
    assert likelihood_percentile(with_support(Gaussian(), images(10)), torch.cat((best, worst))).tolist() == [100, 0]


def test_without_a_density_the_long_latents_are_implausible():
    best, worst = torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, 1, 4, 4)
    assert likelihood_percentile(with_support(Rotated(), images(10)), torch.cat((best, worst))).tolist() == [100, 0]


class Flat(Rotated):
    r"""A density that is the same everywhere; it counts the images it is asked about."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def log_prob(self, x):
        self.asked.append(len(x))
        return x.new_zeros(len(x))


def test_many_images_are_asked_about_in_few_portions():
    generator, x = Flat(), images(600)
    assert log_likelihood(generator, x).shape == (600,)
    assert sum(generator.asked) == 600
    assert 2 <= len(generator.asked) <= 6


def test_density_that_is_not_a_number_is_no_percentage():
    x = images(3)
    x[1] = torch.nan
    percentages = likelihood_percentile(with_support(Gaussian(), images(3, seed=1)), x)
    assert percentages.isnan().tolist() == [False, True, False]


def test_bad_input_is_refused(generator):
    with pytest.raises(TypeError, match="no density"):
        log_likelihood(generator, images(2))
    with pytest.raises(ValueError, match="Gaussian has no support"):
        likelihood_percentile(Gaussian(), images(2))
    other = Gaussian()
    other.support = Support("latent_length", (-4.0, 0.0))
    with pytest.raises(ValueError, match=r"latent_length.*log_prob"):
        likelihood_percentile(other, images(2))
