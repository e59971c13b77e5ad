r"""The decoder of a normalizing flow as a list of functions, with all that depends on parameters alone computed once.

normflows assembles and inverts the matrix of every 1×1 convolution at every call, in float64, which MPS does not have.
Here this is done once per search; ActNorm, a constant scale and shift per channel, is folded into it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import normflows as nf
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["frozen_layers", "run_layers"]

Layer = Callable[[Tensor], Tensor]


def frozen_layers(flows: Iterable[nf.flows.Flow]) -> list[Layer]:
    r"""Functions that take latents through ``flows`` towards the image, log-determinants left out.

    Layers this module does not know are called as they are. The functions hold the parameters' present values; they
    are differentiable in the latents only.
    """
    layers: list[Layer] = []
    pending: tuple[Tensor, Tensor] | None = None  # a 1×1 convolution, waiting for an ActNorm to take in
    for flow in _flattened(flows):
        if isinstance(flow, nf.flows.Invertible1x1Conv):
            layers += _convolution(pending)
            weight = _inverse_weight(flow)
            pending = weight, weight.new_zeros(len(weight))
        elif isinstance(flow, nf.flows.ActNorm) and pending is not None and _is_per_channel(flow):
            scale, shift = flow.s.detach().exp().flatten(), flow.t.detach().flatten()
            pending = scale[:, None] * pending[0], scale * pending[1] + shift
        else:
            layers += _convolution(pending)
            pending = None
            layers.append(_without_log_det(flow))
    return layers + _convolution(pending)


def run_layers(layers: Iterable[Layer], z: Tensor) -> Tensor:
    r"""Applies the functions one after the other."""
    for layer in layers:
        z = layer(z)
    return z


def _flattened(flows: Iterable[nf.flows.Flow]) -> Iterable[nf.flows.Flow]:
    for flow in flows:
        if isinstance(flow, nf.flows.GlowBlock):
            yield from flow.flows
        else:
            yield flow


def _inverse_weight(flow: nf.flows.Invertible1x1Conv) -> Tensor:
    # Inverted in float64 on the CPU, whatever the device of the search: once, before it begins, and exact to rounding.
    with torch.no_grad():
        weight = flow._assemble_W() if flow.use_lu else flow.W
        return torch.linalg.inv(weight.detach().cpu().double()).to(device=weight.device, dtype=weight.dtype)


def _is_per_channel(flow: nf.flows.ActNorm) -> bool:
    return flow.s.numel() == flow.s.shape[1] and bool(flow.data_dep_init_done)


def _convolution(pending: tuple[Tensor, Tensor] | None) -> list[Layer]:
    if pending is None:
        return []
    weight, bias = pending[0][:, :, None, None], pending[1]
    return [lambda z: F.conv2d(z, weight, bias)]


def _without_log_det(flow: nf.flows.Flow) -> Layer:
    return lambda z: flow(z)[0]
