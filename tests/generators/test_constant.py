r"""Constant layers decode as the flow itself does, for every kind of layer, and leave the flow as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import normflows as nf
import pytest
import torch
from torch import Tensor, nn

from captum_dcf.generators.constant import constant_layers, run_inverse, run_layers


def network(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, out_channels, 3, padding=1))


def started(flows: list[nf.flows.Flow], z: Tensor) -> list[nf.flows.Flow]:
    r"""In float64, with random constants and initialised ActNorm."""
    module = nn.ModuleList(flows).double().eval()
    with torch.no_grad():
        for flow in reversed(flows):
            z = flow.inverse(z)[0]
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return flows


def coupling(mode: str, channels: tuple[int, int], **kwargs: Any) -> nf.flows.AffineCouplingBlock:
    return nf.flows.AffineCouplingBlock(network(*channels), split_mode=mode, **kwargs)


LAYERS: dict[str, Callable[[], list[nf.flows.Flow]]] = {
    "coupling exp": lambda: [coupling("channel", (3, 4), scale_map="exp")],
    "coupling sigmoid": lambda: [coupling("channel", (3, 4), scale_map="sigmoid")],
    "coupling sigmoid_inv": lambda: [coupling("channel", (3, 4), scale_map="sigmoid_inv")],
    "coupling that keeps the second half": lambda: [coupling("channel_inv", (2, 6))],
    "coupling on a checkerboard": lambda: [coupling("checkerboard", (5, 10))],
    "additive coupling": lambda: [coupling("channel", (3, 2), scale=False)],
    "convolution": lambda: [nf.flows.Invertible1x1Conv(5)],
    "convolutions": lambda: [nf.flows.Invertible1x1Conv(5, use_lu=True), nf.flows.Invertible1x1Conv(5)],
    "convolution and ActNorm": lambda: [nf.flows.Invertible1x1Conv(5), nf.flows.ActNorm((5, 1, 1))],
    "ActNorm per pixel": lambda: [nf.flows.Invertible1x1Conv(5), nf.flows.ActNorm((5, 4, 4))],
    "ActNorm alone": lambda: [nf.flows.ActNorm((5, 1, 1))],
    "GlowBlock": lambda: [nf.flows.GlowBlock(5, 8), nf.flows.GlowBlock(5, 8, split_mode="channel_inv")],
    "constant": lambda: [nf.flows.AffineConstFlow((5, 4, 4))],
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", LAYERS)
def test_constant_layers_give_what_the_flow_gives_and_the_same_gradient(kind: str):
    flows = started(LAYERS[kind](), torch.randn(7, 5, 4, 4).double())
    z = torch.randn(3, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 5, 4, 4, dtype=torch.float64)
    expected = z
    for flow in flows:
        expected = flow(expected)[0]
    decoded = run_layers(constant_layers(flows), z)
    torch.testing.assert_close(decoded, expected)
    (gradient,) = torch.autograd.grad((decoded * weights).sum(), z)
    torch.testing.assert_close(gradient, torch.autograd.grad((expected * weights).sum(), z)[0])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", LAYERS)
def test_the_inverse_and_pull_back_give_the_input_and_its_gradient(kind: str):
    flows = started(LAYERS[kind](), torch.randn(7, 5, 4, 4).double())
    z = torch.randn(3, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    for layer in constant_layers(flows):
        y = layer(z)
        gradient = torch.randn_like(y)
        torch.testing.assert_close(layer.inverse(y), z)
        before, pulled = layer.pull_back(y.detach(), gradient, torch.zeros(len(y)).to(y))
        torch.testing.assert_close(before, z.detach())
        torch.testing.assert_close(pulled, torch.autograd.grad(y, z, gradient)[0])
        assert not before.requires_grad
        assert not pulled.requires_grad
        z = y.detach().requires_grad_()


def test_a_convolution_and_the_actnorm_behind_it_are_one_layer():
    flows = [flow for _ in range(3) for flow in (nf.flows.Invertible1x1Conv(4), nf.flows.ActNorm((4, 1, 1)))]
    layers = constant_layers(started(flows, torch.randn(7, 4, 2, 2).double()))
    assert len(layers) == 3


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", LAYERS)
def test_pull_back_takes_an_output_with_a_history(kind: str):
    flows = started(LAYERS[kind](), torch.randn(7, 5, 4, 4).double())
    z = torch.randn(3, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    for layer in constant_layers(flows):
        y = layer(z)
        gradient = torch.randn_like(y)
        before, pulled = layer.pull_back(y, gradient, torch.zeros(len(y)).to(y))
        torch.testing.assert_close(before, z)
        torch.testing.assert_close(pulled, torch.autograd.grad(y, z, gradient)[0])
        assert not before.requires_grad
        z = y.detach().requires_grad_()


def test_an_actnorm_that_has_not_seen_data_is_left_to_itself():
    flows = [nf.flows.Invertible1x1Conv(4), nf.flows.ActNorm((4, 1, 1))]
    assert len(constant_layers(flows)) == 2
    # The first batch that it is shown sets it, as everywhere in normflows.
    run_layers(constant_layers(flows), torch.randn(16, 4, 2, 2))
    assert flows[1].data_dep_init_done
    assert len(constant_layers(flows)) == 1


def test_a_subclass_of_a_coupling_keeps_its_own_forward():
    class Doubled(nf.flows.AffineCouplingBlock):
        def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
            y, log_det = super().forward(z)
            return 2 * y, log_det

        def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
            return super().inverse(y / 2)

    flows = [Doubled(network(2, 4))]
    z = torch.randn(3, 4, 2, 2)
    with torch.no_grad():
        y = run_layers(constant_layers(flows), z)
        torch.testing.assert_close(y, flows[0](z)[0])
        torch.testing.assert_close(run_inverse(constant_layers(flows), y), z)


def ill_conditioned(channels: int) -> nf.flows.Invertible1x1Conv:
    r"""A convolution in single precision whose matrix has a condition of 1e5."""
    convolution = nf.flows.Invertible1x1Conv(channels)
    left, right = (torch.linalg.qr(torch.randn(channels, channels)).Q for _ in range(2))
    with torch.no_grad():
        convolution.W.copy_(left @ torch.diag(torch.logspace(0, -5, channels)) @ right)
    return convolution


def test_the_matrix_of_a_convolution_is_inverted_in_double_precision():
    convolution = ill_conditioned(8)
    z = torch.randn(64, 8, 1, 1)
    with torch.no_grad():
        y = run_layers(constant_layers([convolution]), z)
    exact = torch.linalg.inv(convolution.W.detach().double())
    expected = torch.einsum("ij,njhw->nihw", exact, z.double())
    # Rounding of the entries and of one product; an inverse in single precision is off by some 1e-3.
    assert ((y - expected).norm() / expected.norm()).item() < 2e-6


@pytest.mark.parametrize("use_lu", [False, True])
def test_layers_keep_the_parameters_of_when_they_were_made(use_lu: bool):
    convolution = nf.flows.Invertible1x1Conv(4, use_lu=use_lu)
    layers, z = constant_layers([convolution]), torch.randn(2, 4, 3, 3)
    with torch.no_grad():
        y = run_layers(layers, z)
        for parameter in convolution.parameters():
            parameter.mul_(1.5)
        torch.testing.assert_close(run_layers(layers, z), y)
        torch.testing.assert_close(run_inverse(layers, y), z)
