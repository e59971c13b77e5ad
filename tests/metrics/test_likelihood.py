from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from toys import Rotated, images

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


def test_percentile_is_that_of_scipy():
    from scipy.stats import percentileofscore

    generator, x, held_out = Gaussian(), images(5), images(40, seed=1)
    real = log_likelihood(generator, held_out).numpy()
    expected = [percentileofscore(real, score, kind="weak") for score in log_likelihood(generator, x).numpy()]
    np.testing.assert_allclose(likelihood_percentile(generator, x, held_out), expected, rtol=1e-5)


def test_extremes():
    held_out = images(10)
    best, worst = torch.full((1, 1, 4, 4), 0.5), torch.full((1, 1, 4, 4), 50.0)
    assert likelihood_percentile(Gaussian(), torch.cat((best, worst)), held_out).tolist() == [100.0, 0.0]


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


def test_images_as_plausible_as_another_count():
    assert likelihood_percentile(Flat(), images(2), images(5, seed=1)).tolist() == [100.0, 100.0]


def test_density_that_is_not_a_number_is_no_percentage():
    x = images(3)
    x[1] = torch.nan
    percentages = likelihood_percentile(Gaussian(), x, images(3, seed=1))
    assert percentages.isnan().tolist() == [False, True, False]


def test_references_without_a_density_are_refused():
    references = images(5)
    references[2, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="of 5, 1 have NaN"):
        likelihood_percentile(Gaussian(), images(2), references)


def test_bad_input_is_refused(generator):
    with pytest.raises(TypeError, match="no density"):
        log_likelihood(generator, images(2))
    with pytest.raises(ValueError, match="no references"):
        likelihood_percentile(Gaussian(), images(2), images(2)[:0])
    with pytest.raises(ValueError, match=r"\(2, 1, 4, 4\) and \(3, 16\)"):
        likelihood_percentile(Gaussian(), images(2), torch.zeros(3, 16))
