r"""The density that comes with a decode: that of log_prob, with its gradient, whatever is kept in memory."""

from __future__ import annotations

import normflows as nf
import pytest
import torch

from captum_dcf.generators import NormalizingFlowGenerator
from captum_dcf.models.glow import glow

SHAPE = (3, 8, 8)


def moved_glow(**settings: object) -> NormalizingFlowGenerator:
    r"""A Glow whose layers all change the volume, in float64."""
    torch.manual_seed(0)
    flow = glow(SHAPE, [2, 2], [8, 8])
    with torch.no_grad():
        flow.log_prob(torch.rand(8, *SHAPE), None)
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return NormalizingFlowGenerator(flow.double().eval(), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("memory", ["full", "constant"])
@pytest.mark.parametrize("constant", [True, False])
def test_it_is_the_log_density_of_the_image(memory: str, constant: bool):
    generator = moved_glow(memory=memory)
    z = generator.encode(torch.rand(3, *SHAPE, dtype=torch.float64)).detach()
    expected_images = generator.decode(z)
    expected = generator.flow.log_prob(expected_images, None)
    if constant:
        with generator.constant():
            images, log_prob = generator.decode_with_log_prob(z)
            again = generator.log_prob(images)
            torch.testing.assert_close(again, expected)
    else:
        images, log_prob = generator.decode_with_log_prob(z)
    torch.testing.assert_close(images, expected_images)
    torch.testing.assert_close(log_prob, expected)


@pytest.mark.parametrize("memory", ["full", "constant"])
def test_its_gradient_is_that_of_finite_differences(memory: str):
    generator = moved_glow(memory=memory)
    z = generator.encode(torch.rand(2, *SHAPE, dtype=torch.float64)).detach()
    direction = torch.randn_like(z)
    weights = torch.randn(2, *SHAPE, dtype=torch.float64)

    def loss(points: torch.Tensor) -> torch.Tensor:
        images, log_prob = generator.decode_with_log_prob(points)
        assert log_prob is not None
        return (images * weights).sum() + log_prob.sum()

    with generator.constant():
        leaf = z.clone().requires_grad_()
        [gradient] = torch.autograd.grad(loss(leaf), leaf)
        step = 1e-6
        difference = (loss(z + step * direction) - loss(z - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-5, atol=1e-5)


def test_a_flow_over_rows_has_one_too():
    torch.manual_seed(0)
    network = nf.nets.MLP([2, 8, 4])
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(4), [nf.flows.AffineCouplingBlock(network)])
    generator = NormalizingFlowGenerator(flow.eval(), None, image_shape=(1, 2, 2))
    x = torch.randn(5, 1, 2, 2)
    images, log_prob = generator.decode_with_log_prob(generator.encode(x))
    torch.testing.assert_close(images, x)
    torch.testing.assert_close(log_prob, generator.log_prob(x))
