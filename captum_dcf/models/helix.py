r"""Flow and classifier of the helix experiment (Dombrowski et al., 2024, section 4.1)."""

from __future__ import annotations

import normflows as nf
import torch
from torch import nn

__all__ = ["helix_classifier", "helix_flow"]

# Per coupling: 1 for the coordinates that pass unchanged and steer the others.
_MASKS = ((0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 0, 1), (1, 0, 0), (0, 1, 0)) * 2


def helix_flow(hidden: int = 256) -> nf.NormalizingFlow:
    r"""RealNVP in three dimensions with twelve couplings and a standard normal base; points (N, 3) stand for images.

    Scale and shift networks have the widths 3-``hidden``-``hidden``-3 and LeakyReLU; the scale's ends in tanh.

    Args:
        hidden: Width of the networks; the paper's is 256.

    Examples:
        >>> helix_flow(hidden=8).log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """
    widths = [3, hidden, hidden, 3]
    couplings = [
        nf.flows.MaskedAffineFlow(
            torch.tensor(mask, dtype=torch.float32),
            t=nf.nets.MLP(widths, leaky=0.01),
            s=nf.nets.MLP(widths, leaky=0.01, output_fn="tanh"),
        )
        for mask in _MASKS
    ]
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(3, trainable=False), couplings)


def helix_classifier(hidden: int = 256) -> nn.Sequential:
    r"""Linear 3-``hidden``, ReLU, linear ``hidden``-1: one logit (N, 1), positive for class 1 (z > 0)."""
    return nn.Sequential(nn.Linear(3, hidden), nn.ReLU(), nn.Linear(hidden, 1))
