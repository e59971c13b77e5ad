r"""The small parts that all searches share: noise of numbers, rows of a batch, terms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from captum_dcf.search.noise import noise
from captum_dcf.search.rows import finite_rows, half_way, like
from captum_dcf.search.step import row_norm
from captum_dcf.search.term import PixelDistance, ReconstructionDistance, SquaredDistance

# Noise


def test_noise_depends_on_its_seed_only():
    drawn: list[int] = []

    def draw(source: torch.Generator) -> Tensor:
        drawn.append(source.initial_seed())
        return torch.randn(3, 2, generator=source)

    seeds = torch.tensor([5, 9, 5, 2])
    state = torch.get_rng_state()
    values = noise(seeds, draw, torch.zeros(1, dtype=torch.float64))
    assert values.shape == (4, 3, 2)
    assert values.dtype == torch.float64
    assert torch.equal(values[0], values[2])
    assert not torch.equal(values[0], values[1])
    for seed, value in zip(seeds.tolist(), values):
        assert torch.equal(value, torch.randn(3, 2, generator=torch.Generator().manual_seed(seed)).double())
    # Once for equal seeds, and nothing of the caller's random state.
    assert sorted(drawn) == [2, 5, 9]
    assert torch.equal(torch.get_rng_state(), state)


# Rows


def test_rows_that_are_finite():
    values = torch.zeros(4, 2, 3)
    values[1, 0, 2], values[2, 1, 1], values[3, 0, 0] = torch.inf, torch.nan, -torch.inf
    assert finite_rows(values).tolist() == [True, False, False, False]
    assert finite_rows(values[:, 0, 0]).tolist() == [True, True, True, False]


def test_half_way_keeps_what_is_equal_also_where_it_is_infinite():
    start, end = torch.tensor([[1.0, -torch.inf, 3e38]]), torch.tensor([[2.0, -torch.inf, 3.2e38]])
    torch.testing.assert_close(half_way(start, end), torch.tensor([[1.5, -torch.inf, 3.1e38]]))


def test_a_mask_takes_the_shape_of_what_it_chooses_among():
    mask = torch.tensor([True, False])
    assert [tuple(like(mask, torch.zeros(2, *[3] * k)).shape) for k in range(4)] == [
        (2,),
        (2, 1),
        (2, 1, 1),
        (2, 1, 1, 1),
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_length_of_rows(dtype: torch.dtype):
    values = torch.full((2, 40_000), 2.0, dtype=dtype)
    assert row_norm(values).dtype == dtype
    torch.testing.assert_close(row_norm(values), torch.full((2, 1), 400.0, dtype=dtype))


# Terms

INPUTS = torch.tensor([[0.0, 0.0], [1.0, 2.0], [5.0, 5.0]])
ROWS = torch.tensor([1, 0])


def test_the_pixel_distance_is_the_l1_norm_but_near_zero():
    images = torch.tensor([[1.5, 1.0], [0.0, 1e-4]])
    loss, allowed = PixelDistance(INPUTS, weight=3.0)(images, images, ROWS)
    assert allowed is None
    # Within 1e-3 it is a parabola that meets the absolute value less half of that.
    torch.testing.assert_close(loss, 3 * torch.tensor([0.5 + 1.0 - 1e-3, 0.5 * 1e-8 / 1e-3]))


def test_the_slope_of_the_pixel_distance_rises_evenly_within_rounding():
    images = torch.tensor([[1.0 + 2e-3, 2.0 - 2e-3], [5e-4, 0.0]], requires_grad=True)
    PixelDistance(INPUTS, weight=2.0)(images, images, ROWS)[0].sum().backward()
    torch.testing.assert_close(images.grad, torch.tensor([[2.0, -2.0], [1.0, 0.0]]), rtol=1e-3, atol=1e-6)


def test_the_squared_distance():
    images = torch.tensor([[1.5, 1.0], [0.0, 3.0]])
    loss, allowed = SquaredDistance(INPUTS)(images, images, ROWS)
    torch.testing.assert_close(loss, torch.tensor([1.25, 9.0]))
    assert allowed is None


def test_the_distance_to_a_reconstruction():
    images = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    loss, allowed = ReconstructionDistance(lambda x: x.mul_(2), weight=0.5)(images, images, ROWS)
    torch.testing.assert_close(loss, torch.tensor([2.5, 4.5]))
    assert allowed is None
    assert images.tolist() == [[1.0, 2.0], [0.0, 3.0]]


@pytest.mark.parametrize(
    ("autoencoder", "error", "says"),
    [
        (lambda x: (x, x), TypeError, "tuple"),
        (lambda x: None, TypeError, "NoneType"),
        (lambda x: x[:1], ValueError, r"\(2, 2\).*\(1, 2\)"),
        (lambda x: x.mean(1, keepdim=True), ValueError, r"\(2, 2\).*\(2, 1\)"),
    ],
)
def test_c28_an_autoencoder_gives_images_of_the_same_shape(autoencoder, error: type[Exception], says: str):
    with pytest.raises(error, match=f"autoencoder .*{says}"):
        ReconstructionDistance(autoencoder, weight=1.0)(torch.zeros(2, 2), torch.zeros(2, 2), ROWS)
