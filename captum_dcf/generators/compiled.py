r"""Networks through ``torch.compile``, or as they are where that fails."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from captum_dcf.generators.constant import NetworkCall, call_network

__all__ = ["CompiledCall"]


class CompiledCall:
    r"""Calls networks through ``torch.compile``; from the first failure on, after one warning, without it.

    One compiled function serves all networks of a kind, whatever their number and the size of the batch.
    """

    def __init__(self) -> None:
        self._call: NetworkCall = torch.compile(call_network, dynamic=True)

    def __call__(self, network: nn.Module, x: Tensor) -> Tensor:
        r"""``network(x)``."""
        try:
            return self._call(network, x)
        except Exception as error:
            # A compiler fails in many ways. If it is the network that fails, this line does so too.
            output = network(x)
            warnings.warn(f"torch.compile failed, going on without it: {error}", RuntimeWarning, stacklevel=2)
            self._call = call_network
            return output
