r"""A normalizing flow as a list of layers, with all that depends on parameters alone computed once.

normflows assembles and inverts the matrix of every 1×1 convolution at every call, in float64, which MPS does not have.
Here this is done once per search; ActNorm, a constant scale and shift per channel, is folded into it. Log-determinants
are computed only where they are asked for.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import normflows as nf
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "ConstantLayer",
    "LayerStack",
    "LogDets",
    "constant_layers",
    "run_inverse",
    "run_layers",
]

# What normflows' couplings do with the raw value their network gives for the scale.
_SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "sigmoid": lambda raw: 1 / torch.sigmoid(raw + 2),
    "sigmoid_inv": lambda raw: torch.sigmoid(raw + 2),
}


# Log-determinants of the layers gone through, (N,) each.
LogDets = list[Tensor]


class ConstantLayer(ABC):
    r"""One invertible layer with constant parameters, from latents towards the image, differentiable in latents."""

    @abstractmethod
    def __call__(self, z: Tensor, log_dets: LogDets | None = None) -> Tensor:
        r"""The layer's output y, (N, ...), for its input z, (N, ...); log |det ∂y/∂z| is appended to ``log_dets``."""

    @abstractmethod
    def inverse(self, y: Tensor, log_dets: LogDets | None = None) -> Tensor:
        r"""The input z that gives the output y; log |det ∂y/∂z|, of the layer itself, is appended to ``log_dets``."""

    @abstractmethod
    def pull_back(self, y: Tensor, gradient: Tensor, of_log_det: Tensor) -> tuple[Tensor, Tensor]:
        r"""From the output y and a loss's gradient in y: the input z and the gradient in z, both detached.

        ``of_log_det`` is the loss's gradient in the layer's log-determinant, (N,).
        """


def constant_layers(flows: Iterable[nf.flows.Flow]) -> list[ConstantLayer]:
    r"""Layers that take latents through ``flows`` towards the image, with the parameters' present values.

    Affine couplings that split channels, 1×1 convolutions and ActNorm behind one are taken apart; layers this module
    does not know are called as they are.

    Args:
        flows: Layers of normflows.
    """
    layers: list[ConstantLayer] = []
    for flow in _flattened(flows):
        previous = layers[-1] if layers else None
        if isinstance(flow, nf.flows.Invertible1x1Conv):
            layers.append(_Convolution.of(flow))
        elif isinstance(flow, nf.flows.ActNorm) and isinstance(previous, _Convolution) and _is_per_channel(flow):
            layers[-1] = previous.followed_by(flow)
        elif _splits_channels(flow):
            layers.append(_Coupling(flow))
        else:
            layers.append(_AsItIs(flow))
    return layers


def run_layers(layers: Sequence[ConstantLayer], z: Tensor, log_dets: LogDets | None = None) -> Tensor:
    r"""Applies the layers one after the other, and appends their log-determinants where a list is given."""
    for layer in layers:
        z = layer(z, log_dets)
    return z


def run_inverse(layers: Sequence[ConstantLayer], y: Tensor, log_dets: LogDets | None = None) -> Tensor:
    r"""The input for which :func:`run_layers` gives ``y``; appends the same log-determinants where a list is given."""
    for layer in reversed(layers):
        y = layer.inverse(y, log_dets)
    return y


class LayerStack(threading.local):
    r"""The layers of all ``constant()`` contexts that are open, innermost last; every thread sees its own alone.

    Contexts may end in another order than they began. Copies and pickles are empty, so that layers never outlive the
    context they were made for.
    """

    def __init__(self) -> None:
        self._open: dict[object, list[list[ConstantLayer]]] = {}

    @property
    def innermost(self) -> list[list[ConstantLayer]] | None:
        r"""The layers, level by level, of this thread's innermost context; None outside of one."""
        return next(reversed(self._open.values()), None)

    @contextmanager
    def entered(self, levels: list[list[ConstantLayer]]) -> Iterator[None]:
        r"""A context with these layers."""
        # Not self._open at the end: the context may be left in another thread, such as the garbage collector's.
        contexts, own = self._open, object()
        contexts[own] = levels
        try:
            yield
        finally:
            del contexts[own]

    def __reduce__(self) -> tuple[type[LayerStack], tuple[()]]:
        return type(self), ()


class _Convolution(ConstantLayer):
    """A 1×1 convolution, given by its matrix and that of its inverse, and a shift per channel."""

    def __init__(self, matrix: Tensor, inverse_matrix: Tensor, shift: Tensor, log_det: Tensor) -> None:
        self.matrix = matrix
        self.inverse_matrix = inverse_matrix
        self.shift = shift
        self.log_det = log_det  # of the matrix: that of one pixel
        self.inverse_shift = -inverse_matrix @ shift

    @classmethod
    def of(cls, flow: nf.flows.Invertible1x1Conv) -> _Convolution:
        with torch.no_grad():
            inverse_matrix = (flow._assemble_W() if flow.use_lu else flow.W).detach().clone()
        # In float64 on the CPU, whatever the device of the search: once, before it begins, and exact to rounding.
        wide = torch.linalg.inv(inverse_matrix.cpu().double())
        matrix = wide.to(inverse_matrix)
        return cls(matrix, inverse_matrix, matrix.new_zeros(len(matrix)), torch.linalg.slogdet(wide)[1].to(matrix))

    def followed_by(self, flow: nf.flows.ActNorm) -> _Convolution:
        scale, shift = flow.s.detach().exp().flatten(), flow.t.detach().flatten()
        log_det = self.log_det + flow.s.detach().sum()
        return _Convolution(
            scale[:, None] * self.matrix, self.inverse_matrix / scale, scale * self.shift + shift, log_det
        )

    def __call__(self, z: Tensor, log_dets: LogDets | None = None) -> Tensor:
        if log_dets is not None:
            log_dets.append((z[0, 0].numel() * self.log_det).expand(len(z)))
        return F.conv2d(z, self.matrix[:, :, None, None], self.shift)

    def inverse(self, y: Tensor, log_dets: LogDets | None = None) -> Tensor:
        if log_dets is not None:
            log_dets.append((y[0, 0].numel() * self.log_det).expand(len(y)))
        return F.conv2d(y, self.inverse_matrix[:, :, None, None], self.inverse_shift)

    @torch.no_grad()
    def pull_back(self, y: Tensor, gradient: Tensor, of_log_det: Tensor) -> tuple[Tensor, Tensor]:
        return self.inverse(y), F.conv2d(gradient, self.matrix.T[:, :, None, None])


class _Coupling(ConstantLayer):
    """An affine coupling: one half of the channels is kept and says how the other half is scaled and shifted."""

    def __init__(self, block: nf.flows.AffineCouplingBlock) -> None:
        split, coupling, _ = block.flows
        self.keeps_second_half = split.mode == "channel_inv"
        self.network = coupling.param_map
        self.scale = _SCALES[coupling.scale_map] if coupling.scale else None

    def __call__(self, z: Tensor, log_dets: LogDets | None = None) -> Tensor:
        kept, moved = self._split(z)
        scale, shift = self._affine(kept, log_dets)
        return self._join(kept, moved * scale + shift)

    def inverse(self, y: Tensor, log_dets: LogDets | None = None) -> Tensor:
        kept, moved = self._split(y)
        scale, shift = self._affine(kept, log_dets)
        return self._join(kept, (moved - shift) / scale)

    def pull_back(self, y: Tensor, gradient: Tensor, of_log_det: Tensor) -> tuple[Tensor, Tensor]:
        # The kept half is the same in z and y, so one pass through the network serves the inverse and the gradient.
        kept, moved = self._split(y)
        kept_gradient, moved_gradient = self._split(gradient)
        with torch.enable_grad():
            kept.requires_grad_()
            log_dets: LogDets = []
            scale, shift = self._affine(kept, log_dets)
        with torch.no_grad():
            moved = (moved - shift) / scale
        with torch.enable_grad():
            moved.requires_grad_()
            outputs = [moved * scale + shift, *log_dets]
            gradients = [moved_gradient, *[of_log_det] * len(log_dets)]
            through_network, moved_gradient = torch.autograd.grad(outputs, (kept, moved), gradients)
        return self._join(kept.detach(), moved.detach()), self._join(kept_gradient + through_network, moved_gradient)

    def _affine(self, kept: Tensor, log_dets: LogDets | None = None) -> tuple[Tensor | float, Tensor]:
        parameters = self.network(kept)
        if self.scale is None:
            return 1.0, parameters
        scale = self.scale(parameters[:, 1::2])
        if log_dets is not None:
            log_dets.append(scale.log().flatten(1).sum(1))
        return scale, parameters[:, 0::2]

    def _split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        first, second = z.chunk(2, dim=1)
        return (second, first) if self.keeps_second_half else (first, second)

    def _join(self, kept: Tensor, moved: Tensor) -> Tensor:
        return torch.cat((moved, kept) if self.keeps_second_half else (kept, moved), dim=1)


class _AsItIs(ConstantLayer):
    """Any other flow with an inverse."""

    def __init__(self, flow: nf.flows.Flow) -> None:
        self.flow = flow

    def __call__(self, z: Tensor, log_dets: LogDets | None = None) -> Tensor:
        y: Tensor
        y, log_det = self.flow(z)
        if log_dets is not None:
            # Layers that change no volume say 0, as a number.
            log_dets.append(torch.as_tensor(log_det).to(y).expand(len(y)))
        return y

    def inverse(self, y: Tensor, log_dets: LogDets | None = None) -> Tensor:
        z: Tensor
        z, log_det = self.flow.inverse(y)
        if log_dets is not None:
            log_dets.append(-torch.as_tensor(log_det).to(z).expand(len(z)))
        return z

    def pull_back(self, y: Tensor, gradient: Tensor, of_log_det: Tensor) -> tuple[Tensor, Tensor]:
        # Copies, because a layer may write into what it is given: y is also the image that the search holds.
        with torch.no_grad():
            z = self.inverse(y.clone())
        with torch.enable_grad():
            z.requires_grad_()
            log_dets: LogDets = []
            outputs, gradients = [self(z.clone(), log_dets)], [gradient]
            if log_dets[0].requires_grad:
                outputs, gradients = [*outputs, *log_dets], [gradient, of_log_det]
            (gradient,) = torch.autograd.grad(outputs, z, gradients)
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


def _is_per_channel(flow: nf.flows.ActNorm) -> bool:
    return flow.s.numel() == flow.s.shape[1] and bool(flow.data_dep_init_done)
