from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_dcf.data.helix import helix, helix_tangent
from captum_dcf.generators import NormalizingFlowGenerator
from captum_dcf.geometry import (
    first_order_error,
    inverse_metric,
    jacobian,
    local_dimension,
    off_manifold_share,
    spectrum,
    tangent_space,
)
from captum_dcf.models.glow import glow


def curved(dimensions, pixels):
    r"""A smooth decoder to images 1 × 1 × ``pixels``."""
    matrix = torch.randn(pixels, dimensions, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return lambda z: torch.sin(z @ matrix.T).view(len(z), 1, 1, pixels)


def linear(matrix):
    return lambda z: (z @ matrix.T).view(len(z), 1, 1, len(matrix))


# By rows, by rows, by columns.
@pytest.mark.parametrize(("dimensions", "pixels"), [(5, 5), (6, 4), (2, 9)])
@pytest.mark.parametrize("batch_size", [3, 64])
def test_jacobian_is_that_of_autograd(dimensions, pixels, batch_size):
    decode, latents = curved(dimensions, pixels), torch.randn(4, dimensions, dtype=torch.float64)
    expected = torch.stack(
        [torch.autograd.functional.jacobian(lambda z: decode(z[None]).flatten(), latent) for latent in latents]
    )
    measured = jacobian(decode, latents, batch_size)
    torch.testing.assert_close(measured, expected)
    torch.testing.assert_close(inverse_metric(decode, latents, batch_size), expected @ expected.mT)
    torch.testing.assert_close(spectrum(decode, latents, batch_size=batch_size), torch.linalg.svdvals(expected))


def test_helix_has_one_direction_of_constant_length():
    z = torch.linspace(-4, 4, 9)[:, None]
    torch.testing.assert_close(spectrum(helix, z), torch.full((9, 1), 2**0.5))
    tangent = tangent_space(helix, z, dimension=1).squeeze(2)
    torch.testing.assert_close((tangent * helix_tangent(z)).sum(1).abs(), torch.ones(9))
    torch.testing.assert_close(inverse_metric(helix, z), 2 * tangent[:, :, None] * tangent[:, None, :])


@pytest.fixture
def falling():
    r"""A matrix 400 × 300 with singular values that halve, and its left singular vectors."""
    left = torch.linalg.qr(torch.randn(400, 300)).Q
    right = torch.linalg.qr(torch.randn(300, 300)).Q
    values = 8 * 0.5 ** torch.arange(300.0)
    return left * values @ right.T, left, values


def test_leading_values_of_a_large_decoder_need_few_products(falling):
    matrix, left, values = falling
    evaluated = []

    def decode(z):
        evaluated.append(len(z))
        return linear(matrix)(z)

    measured = spectrum(decode, torch.randn(2, 300), rank=4)
    torch.testing.assert_close(measured, values[:4].expand(2, -1), rtol=1e-4, atol=0)
    assert sum(evaluated) < 2 * 300 / 3
    basis = tangent_space(decode, torch.randn(2, 300), dimension=4)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(4).expand(2, -1, -1), rtol=0, atol=1e-5)
    assert (off_manifold_share(left[:, :4].sum(1).expand(2, -1), basis) < 1e-3).all()


def test_leading_values_of_a_slowly_falling_spectrum_are_near(falling):
    # Power iterations separate values that lie close together: without any some are too small by a third, with one by
    # a hundredth, with two by a thousandth.
    left = falling[1]
    values = 8 / (1 + torch.arange(300.0)) ** 0.5
    right = torch.linalg.qr(torch.randn(300, 300)).Q
    measured = spectrum(linear(left * values @ right.T), torch.randn(2, 300), rank=4)
    torch.testing.assert_close(measured, values[:4].expand(2, -1), rtol=4e-3, atol=0)
    assert (measured <= values[:4] * (1 + 1e-5)).all()


class BackwardOnly(torch.autograd.Function):
    r"""The identity, without forward-mode differentiation."""

    @staticmethod
    def forward(ctx, z):
        return z.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_only_few_dimensions_need_forward_mode():
    # Three columns cost as much as twelve rows, so nine rows are cheaper.
    matrix = torch.randn(9, 3)
    measured = jacobian(lambda z: linear(matrix)(BackwardOnly.apply(z)), torch.randn(2, 3))
    torch.testing.assert_close(measured, matrix.expand(2, -1, -1))


def test_random_directions_leave_the_global_state_alone(falling):
    state = torch.get_rng_state()
    first, again = (spectrum(linear(falling[0]), torch.zeros(1, 300), rank=3) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def flow():
    generator = NormalizingFlowGenerator(glow((1, 4, 4), (2,), (8,)))
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        generator.encode(torch.rand(8, 1, 4, 4))
    return generator.double().eval()


@pytest.mark.parametrize("memory", ["full", "constant"])
def test_volume_of_a_flow_is_that_of_its_density(flow, memory):
    # log p(x) = log p(z) - log |det J|, and |det J| is the product of the singular values.
    flow.memory = memory
    x = torch.rand(3, 1, 4, 4, dtype=torch.float64)
    latents = flow.encode(x).detach()
    with flow.constant():
        values = spectrum(flow.decode, latents)
    of_latents = torch.distributions.Normal(0.0, 1.0).log_prob(latents).sum(1)
    torch.testing.assert_close(of_latents - values.log().sum(1), flow.log_prob(x).detach(), rtol=1e-5, atol=1e-5)


def test_modules_and_latents_are_left_alone(flow):
    latents = torch.randn(2, 16, dtype=torch.float64)
    assert not spectrum(flow.decode, latents).requires_grad
    assert not tangent_space(flow.decode, latents, 2).requires_grad
    assert not first_order_error(flow.decode, lambda x: x.flatten(1).sum(1), latents, 0.1).requires_grad
    assert not latents.requires_grad
    assert all(parameter.grad is None for parameter in flow.parameters())


def test_results_have_the_dtype_of_the_latents():
    latents = torch.randn(2, 300)
    decode = linear(torch.randn(300, 300))
    for result in (spectrum(decode, latents), spectrum(decode, latents, 3), tangent_space(decode, latents, 3)):
        assert result.dtype == torch.float32


def test_local_dimension_by_hand():
    # Squares 9 9 1 1: 90 % are held by the first two, 94 % by none fewer than three.
    values = torch.tensor([[3.0, 3.0, 1.0, 1.0], [9.0, 0.0, 0.0, 0.0]])
    assert local_dimension(values, share=0.9).tolist() == [2, 1]
    assert local_dimension(values, share=0.94).tolist() == [3, 1]
    assert local_dimension(values, share=1.0).tolist() == [4, 1]


def test_a_share_of_one_counts_the_smallest_direction():
    values = torch.tensor([[1.0, 1e-6, 0.0]], dtype=torch.float64)
    assert local_dimension(values, share=1.0).tolist() == [2]


def test_local_dimension_of_very_large_and_very_small_values():
    values = torch.tensor([[3.0, 2.0, 1.0]])
    expected = local_dimension(values)
    assert local_dimension(100 * values.half()).tolist() == expected.tolist()
    for scale in (1e-30, 1e30):
        assert local_dimension(scale * values).tolist() == expected.tolist()
    assert local_dimension(torch.zeros(1, 3)).tolist() == [1]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_singular_values_that_are_not_finite_have_no_dimension(value):
    with pytest.raises(ValueError, match="1 of 2"):
        local_dimension(torch.tensor([[2.0, 1.0], [value, 1.0]]))


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1.0, 1e30])
def test_off_manifold_share_does_not_depend_on_the_length(scale):
    basis = torch.eye(4)[:, :2].expand(2, -1, -1)
    directions = scale * torch.tensor([[3.0, 0.0, 4.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(off_manifold_share(directions, basis), torch.tensor([0.8, 0.0]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_off_manifold_share_of_what_is_not_finite_is_nan(value):
    directions = torch.tensor([[1.0, 0.0, 0.0, 0.0], [value, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0]])
    shares = off_manifold_share(directions, torch.eye(4)[:, :2].expand(3, -1, -1))
    torch.testing.assert_close(shares, torch.tensor([0.0, torch.nan, 1.0]), equal_nan=True)


def test_off_manifold_share_is_the_sine_of_the_angle():
    basis = torch.eye(4)[:, :2].expand(3, -1, -1)
    directions = torch.tensor([[2.0, -5.0, 0.0, 0.0], [3.0, 0.0, 4.0, 0.0], [0.0, 0.0, 0.0, 0.0]]).view(3, 1, 2, 2)
    torch.testing.assert_close(off_manifold_share(directions, basis), torch.tensor([0.0, 0.8, 0.0]))


def test_error_of_a_latent_step_is_of_second_order():
    decode, latents = curved(3, 7), torch.randn(5, 3, dtype=torch.float64)

    def objective(x):
        return x.flatten(1).square().sum(1)

    sizes = 10.0 ** np.arange(-5, -1)
    ratios = torch.stack([first_order_error(decode, objective, latents, size) / size**2 for size in sizes])
    assert (ratios.amax(0) < 2 * ratios.amin(0)).all()
    torch.testing.assert_close(ratios[0], ratios[1], rtol=1e-2, atol=0)


def test_error_of_a_step_by_hand():
    # g(z) = z², f(x) = x at z = 1: the gradient is 2, the step 1 → 1.2 moves x by .44, and λ J² = .4 is predicted.
    error = first_order_error(lambda z: z**2, lambda x: x.squeeze(1), torch.ones(1, 1), 0.1)
    torch.testing.assert_close(error, torch.tensor([0.04]))


def all_results(decode, latents):
    r"""Of all functions of a decoder, with dimensions few enough for forward mode and for reverse mode."""
    return [
        jacobian(decode, latents),
        inverse_metric(decode, latents),
        spectrum(decode, latents),
        spectrum(decode, latents, rank=2),
        tangent_space(decode, latents, 2).abs(),
        first_order_error(decode, lambda x: x.flatten(1).square().sum(1), latents, 0.1),
    ]


@pytest.mark.parametrize(("dimensions", "pixels"), [(2, 9), (5, 5)])
def test_results_in_inference_mode_are_the_same(dimensions, pixels):
    decode = curved(dimensions, pixels)
    latents = torch.randn(3, dimensions, dtype=torch.float64)
    expected = all_results(decode, latents)
    with torch.inference_mode():
        measured = all_results(decode, latents.clone())
    for one, other in zip(measured, expected):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("dimensions", "pixels"), [(2, 9), (5, 5)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near(dimensions, pixels, dtype):
    matrix = torch.linalg.qr(torch.randn(pixels, dimensions)).Q * torch.linspace(2, 1, dimensions)
    latents = torch.randn(3, dimensions)
    for one, other in zip(
        all_results(linear(matrix.to(dtype)), latents.to(dtype)), all_results(linear(matrix), latents)
    ):
        assert one.dtype == dtype
        torch.testing.assert_close(one.float(), other, rtol=0.1, atol=0.1)


def test_leading_values_in_half_precision(falling):
    matrix, _, values = falling
    measured = spectrum(linear(matrix.bfloat16()), torch.randn(1, 300).bfloat16(), rank=3)
    torch.testing.assert_close(measured.float(), values[None, :3], rtol=0.05, atol=0)


def test_a_decoder_that_writes_into_its_latents_changes_nothing():
    decode, latents = curved(5, 5), torch.randn(3, 5, dtype=torch.float64)
    given = latents.clone()
    for one, other in zip(
        all_results(lambda z: decode(z.mul_(0.5)), latents), all_results(lambda z: decode(0.5 * z), latents)
    ):
        torch.testing.assert_close(one, other)
    assert torch.equal(latents, given)


def test_a_decoder_of_another_type_than_its_latents():
    matrix = torch.randn(5, 5, dtype=torch.float64)
    measured = jacobian(lambda z: linear(matrix)(z.double()), torch.randn(2, 5))
    torch.testing.assert_close(measured, matrix.float().expand(2, -1, -1))


@pytest.mark.parametrize(("dimensions", "pixels"), [(2, 9), (5, 5)])
def test_a_decoder_without_gradient_or_with_one_that_is_not_finite_is_refused(dimensions, pixels):
    decode, latents = linear(torch.randn(pixels, dimensions)), torch.randn(2, dimensions)
    for function in (jacobian, inverse_metric, spectrum):
        with pytest.raises(ValueError, match="differentiable"):
            function(lambda z: decode(z.detach()), latents)
    with pytest.raises(ValueError, match="differentiable"):
        first_order_error(lambda z: decode(z.detach()), lambda x: x.flatten(1).sum(1), latents, 0.1)
    latents[1] = torch.nan
    for rank in (None, 1):
        with pytest.raises(ValueError, match="finite: at 1 of"):
            spectrum(lambda z: decode(z.square()), latents, rank)


def test_numbers_that_are_none_are_refused():
    decode, latents = linear(torch.randn(4, 3)), torch.zeros(1, 3)
    for function in (jacobian, inverse_metric, spectrum):
        for size in (0, -1):
            with pytest.raises(ValueError, match=f"batch_size.*received {size}"):
                function(decode, latents, batch_size=size)
        with pytest.raises(TypeError, match=r"batch_size.*received 2\.0"):
            function(decode, latents, batch_size=2.0)
    with pytest.raises(TypeError, match=r"rank.*received 2\.0"):
        spectrum(decode, latents, rank=2.0)
    with pytest.raises(TypeError, match=r"dimension.*received '2'"):
        tangent_space(decode, latents, "2")
    with pytest.raises(TypeError, match=r"received torch\.int64"):
        jacobian(decode, torch.zeros(1, 3, dtype=torch.int64))


def test_bad_input_is_refused():
    decode = linear(torch.randn(4, 3))
    for function in (jacobian, inverse_metric, spectrum):
        with pytest.raises(ValueError, match=r"\(N, D\).*received \(3,\)"):
            function(decode, torch.zeros(3))
        with pytest.raises(ValueError, match=r"received \(0, 3\)"):
            function(decode, torch.zeros(0, 3))
    with pytest.raises(ValueError, match="4 × 3: there are 1 to 3, received 4"):
        spectrum(decode, torch.zeros(1, 3), rank=4)
    with pytest.raises(ValueError, match="received 0"):
        tangent_space(decode, torch.zeros(1, 3), dimension=0)
    with pytest.raises(ValueError, match=r"must give \(2,\), received \(2, 4\)"):
        first_order_error(decode, lambda x: x.flatten(1), torch.zeros(2, 3), 0.1)
    with pytest.raises(ValueError, match=r"\(2, 5\) and \(2, 4, 1\)"):
        off_manifold_share(torch.zeros(2, 5), torch.zeros(2, 4, 1))
    with pytest.raises(ValueError, match=r"\(N, K\), received \(3,\)"):
        local_dimension(torch.ones(3))
    with pytest.raises(ValueError, match=r"\(0, 1\], received 1.5"):
        local_dimension(torch.ones(1, 3), share=1.5)
