r"""The support of the data: quantiles of what a generator says of its training images."""

from __future__ import annotations

import pytest
import torch

from captum_dcf.generators import Pixels, Support, measure_support


class Bell(Pixels):
    r"""Pixels with the density of a standard normal."""

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return torch.distributions.Normal(0.0, 1.0).log_prob(x.flatten(1)).sum(1)


def test_percentiles_are_those_of_a_normal_distribution():
    torch.manual_seed(0)
    images = torch.randn(4000, 1, 2, 2)
    support = measure_support(Bell((1, 2, 2), None), images)
    assert support.of == "log_prob"
    # -2 log q + constant is χ² of four degrees of freedom, whose median is 3.357.
    constant = 4 * 0.5 * torch.log(torch.tensor(2 * torch.pi))
    median = -3.357 / 2 - float(constant)
    assert support.floor(50) == pytest.approx(median, abs=0.1)
    assert support.percentile(torch.tensor([median])).item() == pytest.approx(50, abs=3)


def test_without_a_density_long_latents_are_implausible():
    images = torch.linspace(0, 1, 101).view(-1, 1, 1, 1)
    support = measure_support(Pixels((1, 1, 1)), images)
    assert support.of == "latent_length"
    # The plausibility is minus the length: the longest latent is at 0 %.
    torch.testing.assert_close(support.percentile(-images.flatten()), torch.linspace(100, 0, 101), atol=0.1, rtol=0)


def test_floor_and_percentile_are_inverse():
    support = Support("log_prob", (-5.0, 1.0, 2.0, 10.0, 11.0))
    shares = torch.tensor([0.0, 1.0, 12.5, 25.0, 60.0, 99.0, 100.0])
    values = torch.tensor([support.floor(float(share)) for share in shares])
    torch.testing.assert_close(support.percentile(values), shares)


def test_percentiles_end_at_0_and_100_and_nan_stays():
    support = Support("log_prob", (0.0, 1.0, 1.0, 2.0))
    values = torch.tensor([-torch.inf, -1.0, 0.0, 1.0, 2.0, torch.inf, torch.nan])
    percentiles = support.percentile(values)
    torch.testing.assert_close(percentiles[:6], torch.tensor([0.0, 0.0, 0.0, 200 / 3, 100.0, 100.0]))
    assert percentiles[6].isnan()


def test_a_support_is_as_it_was_after_json():
    support = Support("latent_length", (-3.125, -1.5, 0.0))
    assert Support(**support.as_dict()) == support


@pytest.mark.parametrize(
    "quantiles", [(1.0,), (), (2.0, 1.0), (0.0, float("nan")), (0.0, float("inf"))], ids=lambda value: str(value)
)
def test_what_are_no_quantiles_is_refused(quantiles: tuple[float, ...]):
    with pytest.raises(ValueError, match="ascending"):
        Support("log_prob", quantiles)


def test_an_unknown_plausibility_is_refused():
    with pytest.raises(ValueError, match="'beauty'"):
        Support("beauty", (0.0, 1.0))  # type: ignore[arg-type]


def test_one_image_has_no_support():
    with pytest.raises(ValueError, match="received 1"):
        measure_support(Pixels((1, 1, 1)), torch.zeros(1, 1, 1, 1))


def test_images_without_a_finite_plausibility_are_left_out_or_refused():
    class Blind(Pixels):
        def log_prob(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x.flatten(1)[:, 0] > 0.5, torch.nan, x.flatten(1)[:, 0])

    images = torch.tensor([0.1, 0.2, 0.9]).view(3, 1, 1, 1)
    support = measure_support(Blind((1, 1, 1)), images)
    assert support.quantiles[0] == pytest.approx(0.1)
    assert support.quantiles[-1] == pytest.approx(0.2)
    with pytest.raises(ValueError, match="only 1 of 2"):
        measure_support(Blind((1, 1, 1)), images[1:])
