r"""Constant layers decode as the flow itself does, for every kind of layer, and leave the flow as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import normflows as nf
import pytest
import torch
from torch import Tensor, nn

from captum_dcf.generators.constant import constant_layers, run_layers


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
        before, pulled = layer.pull_back(y.detach(), gradient)
        torch.testing.assert_close(before, z.detach())
        torch.testing.assert_close(pulled, torch.autograd.grad(y, z, gradient)[0])
        assert not before.requires_grad
        assert not pulled.requires_grad
        z = y.detach().requires_grad_()


def test_a_convolution_and_the_actnorm_behind_it_are_one_layer():
    flows = [flow for _ in range(3) for flow in (nf.flows.Invertible1x1Conv(4), nf.flows.ActNorm((4, 1, 1)))]
    layers = constant_layers(started(flows, torch.randn(7, 4, 2, 2).double()))
    assert len(layers) == 3
