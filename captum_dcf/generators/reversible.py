r"""Gradients through invertible layers that store nothing but the output, so memory does not grow with depth.

On the way back the input of each layer is recomputed from its output by its inverse (Gomez et al., "The Reversible
Residual Network", 2017, https://arxiv.org/abs/1707.04585). A search has constant parameters, so the gradient in the
latents is all that is computed: parameters of the layers get none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from captum_dcf.generators.constant import ConstantLayer, LogDets, run_layers

__all__ = ["run_reversibly"]


def run_reversibly(layers: Sequence[ConstantLayer], z: Tensor, log_dets: LogDets | None = None) -> Tensor:
    r"""Applies the layers one after the other, like :func:`run_layers`, in memory independent of their number.

    A backward pass costs one more evaluation of each layer. Its result can be differentiated once, in ``z`` only, and
    the inverse is exact up to rounding: the gradient is as good as the flow is well conditioned.

    Args:
        layers: Invertible layers.
        z: Their input (N, ...).
        log_dets: Where the sum of their log-determinants is appended.

    Returns:
        The output of the last layer.
    """
    y: Tensor
    y, log_det = _Reversible.apply(z, layers, log_dets is not None)
    if log_dets is not None:
        log_dets.append(log_det)
    return y


class _Reversible(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, layers: Sequence[ConstantLayer], with_log_det: bool) -> tuple[Tensor, Tensor]:
        log_dets: LogDets | None = [] if with_log_det else None
        y = run_layers(layers, z, log_dets)
        ctx.layers = layers
        ctx.save_for_backward(y)
        return y, sum(log_dets or [], z.new_zeros(len(z)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, log_det_gradient: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        for layer in reversed(ctx.layers):
            y, gradient = layer.pull_back(y, gradient, log_det_gradient)
        return gradient, None, None
