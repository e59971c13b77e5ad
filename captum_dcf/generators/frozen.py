r"""The decoder of a normalizing flow as a list of layers, with all that depends on parameters alone computed once.

normflows assembles and inverts the matrix of every 1×1 convolution at every call, in float64, which MPS does not have.
Here this is done once per search; ActNorm, a constant scale and shift per channel, is folded into it. No layer computes
a log-determinant that it can leave out: a search asks for no density.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import normflows as nf
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["FrozenLayer", "frozen_layers", "run_layers"]

# What normflows' couplings do with the raw value their network gives for the scale.
_SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "sigmoid": lambda raw: 1 / torch.sigmoid(raw + 2),
    "sigmoid_inv": lambda raw: torch.sigmoid(raw + 2),
}


class FrozenLayer(ABC):
    r"""One invertible layer with constant parameters, from latents towards the image, differentiable in latents."""

    @abstractmethod
    def __call__(self, z: Tensor) -> Tensor:
        r"""The layer's output y, (N, ...), for its input z, (N, ...)."""

    @abstractmethod
    def pull_back(self, y: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        r"""From the output y and a loss's gradient in y: the input z and the gradient in z, both detached."""


def frozen_layers(flows: Iterable[nf.flows.Flow]) -> list[FrozenLayer]:
    r"""Layers that take latents through ``flows`` towards the image, with the parameters' present values.

    Affine couplings that split channels, 1×1 convolutions and ActNorm behind one are taken apart; layers this module
    does not know are called as they are.
    """
    layers: list[FrozenLayer] = []
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
            layers.append(_Coupling(flow) if _splits_channels(flow) else _AsItIs(flow))
    return layers + _convolution(pending)


def run_layers(layers: Sequence[FrozenLayer], z: Tensor) -> Tensor:
    r"""Applies the layers one after the other."""
    for layer in layers:
        z = layer(z)
    return z


class _Convolution(FrozenLayer):
    """A 1×1 convolution with a bias."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight = weight[:, :, None, None]
        self.bias = bias

    def __call__(self, z: Tensor) -> Tensor:
        return F.conv2d(z, self.weight, self.bias)

    def pull_back(self, y: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = self._inverse
        return F.conv2d(y, weight, bias), F.conv2d(gradient, self.weight.transpose(0, 1))

    @cached_property
    def _inverse(self) -> tuple[Tensor, Tensor]:
        weight = _inverted(self.weight.flatten(1))
        return weight[:, :, None, None], -weight @ self.bias


class _Coupling(FrozenLayer):
    """An affine coupling: one half of the channels is kept and says how the other half is scaled and shifted."""

    def __init__(self, block: nf.flows.AffineCouplingBlock) -> None:
        split, coupling, _ = block.flows
        self.keeps_second_half = split.mode == "channel_inv"
        self.network = coupling.param_map
        self.scale = _SCALES[coupling.scale_map] if coupling.scale else None

    def __call__(self, z: Tensor) -> Tensor:
        kept, moved = self._split(z)
        scale, shift = self._affine(kept)
        return self._join(kept, moved * scale + shift)

    def pull_back(self, y: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        # The kept half is the same in z and y, so one pass through the network serves the inverse and the gradient.
        kept, moved = self._split(y.detach())
        kept_gradient, moved_gradient = self._split(gradient)
        with torch.enable_grad():
            kept.requires_grad_()
            scale, shift = self._affine(kept)
        with torch.no_grad():
            moved = (moved - shift) / scale
        with torch.enable_grad():
            moved.requires_grad_()
            through_network, moved_gradient = torch.autograd.grad(
                moved * scale + shift, (kept, moved), moved_gradient
            )
        return self._join(kept.detach(), moved.detach()), self._join(kept_gradient + through_network, moved_gradient)

    def _affine(self, kept: Tensor) -> tuple[Tensor | float, Tensor]:
        parameters = self.network(kept)
        if self.scale is None:
            return 1.0, parameters
        return self.scale(parameters[:, 1::2]), parameters[:, 0::2]

    def _split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        first, second = z.chunk(2, dim=1)
        return (second, first) if self.keeps_second_half else (first, second)

    def _join(self, kept: Tensor, moved: Tensor) -> Tensor:
        return torch.cat((moved, kept) if self.keeps_second_half else (kept, moved), dim=1)


class _AsItIs(FrozenLayer):
    """Any other flow with an inverse."""

    def __init__(self, flow: nf.flows.Flow) -> None:
        self.flow = flow

    def __call__(self, z: Tensor) -> Tensor:
        return self.flow(z)[0]

    def pull_back(self, y: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            z = self.flow.inverse(y)[0]
        with torch.enable_grad():
            z.requires_grad_()
            (gradient,) = torch.autograd.grad(self(z), z, gradient)
        return z.detach(), gradient


def _flattened(flows: Iterable[nf.flows.Flow]) -> Iterable[nf.flows.Flow]:
    for flow in flows:
        if isinstance(flow, nf.flows.GlowBlock):
            yield from flow.flows
        else:
            yield flow


def _splits_channels(flow: nf.flows.Flow) -> bool:
    # A subclass may do something else in its forward, a checkerboard is split in another way.
    return type(flow) is nf.flows.AffineCouplingBlock and flow.flows[0].mode in ("channel", "channel_inv")


def _inverse_weight(flow: nf.flows.Invertible1x1Conv) -> Tensor:
    with torch.no_grad():
        return _inverted(flow._assemble_W() if flow.use_lu else flow.W)


def _inverted(matrix: Tensor) -> Tensor:
    # In float64 on the CPU, whatever the device of the search: once, before it begins, and exact to rounding.
    return torch.linalg.inv(matrix.detach().cpu().double()).to(device=matrix.device, dtype=matrix.dtype)


def _is_per_channel(flow: nf.flows.ActNorm) -> bool:
    return flow.s.numel() == flow.s.shape[1] and bool(flow.data_dep_init_done)


def _convolution(pending: tuple[Tensor, Tensor] | None) -> list[FrozenLayer]:
    return [] if pending is None else [_Convolution(*pending)]
