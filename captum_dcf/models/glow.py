r"""Glow (Kingma and Dhariwal, 2018) for small images, assembled from normflows.

What differs from the blocks normflows assembles itself, and why:

- The scale of an affine coupling is bounded, so that a latent far from the data cannot overflow the decoder at once.
- The base distribution is a fixed standard normal. The location and scale that a learned prior would hold are the first
  layer of each level instead, so the latent coordinates of every model have the same unit: a step of length one means
  the same everywhere.
- Coupling networks may run in bfloat16 (``autocast``) while the flow around them stays in float32: the network is the
  same function in both directions, so the flow stays invertible whatever its rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import normflows as nf
import torch
from torch import Tensor, nn

__all__ = ["CouplingNetwork", "InvertibleConv", "PixelLogit", "glow"]


class PixelLogit(nf.flows.Flow):  # type: ignore[misc, unused-ignore]
    r"""Maps latent values to pixels in [0, 1]: the inverse of dequantising, then taking the logit.

    ``inverse`` moves a pixel of ``bins`` grey levels to the middle of its bin in (0, 1), shrinks that by
    ``1 - 2 * alpha`` around one half and takes the logit; ``forward`` undoes it. Nothing is rounded and no noise is
    drawn, so the map is exact in both directions. Training adds its own dequantisation noise to the pixels.
    """

    def __init__(self, bins: int = 256, alpha: float = 0.05) -> None:
        super().__init__()
        self.bins = bins
        self.alpha = alpha

    def _log_slope(self) -> float:
        return math.log((self.bins - 1) / self.bins * (1 - 2 * self.alpha))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        unit = (torch.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha)
        log_sigmoids = nn.functional.logsigmoid(z) + nn.functional.logsigmoid(-z)
        return (unit * self.bins - 0.5) / (self.bins - 1), (log_sigmoids - self._log_slope()).flatten(1).sum(1)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        unit = (x * (self.bins - 1) + 0.5) / self.bins
        squeezed = self.alpha + (1 - 2 * self.alpha) * unit
        log, log_rest = torch.log(squeezed), torch.log1p(-squeezed)
        return log - log_rest, (self._log_slope() - log - log_rest).flatten(1).sum(1)


class CouplingNetwork(nn.Module):
    r"""Convolutions 3×3, 1×1, 3×3 that give an affine coupling its shift and bounded log-scale, interleaved.

    The last layer starts at zero, so a new coupling is the identity. Log-scales lie in (-``bound``, ``bound``).
    """

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, bound: float = 2.0) -> None:
        super().__init__()
        self.bound = bound
        self.autocast = False
        last = nn.Conv2d(hidden_channels, 2 * out_channels, 3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, hidden_channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden_channels, hidden_channels, 1),
            nn.ReLU(),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        # Autocast for MPS came with torch 2.5; before, even to switch it off raises an error.
        has_autocast = self.autocast or x.device.type in ("cpu", "cuda")
        with torch.autocast(x.device.type, torch.bfloat16, self.autocast) if has_autocast else nullcontext():
            raw = self.net(x.contiguous(memory_format=torch.channels_last))
        shift, log_scale = raw.to(x.dtype).chunk(2, dim=1)
        log_scale = self.bound * torch.tanh(log_scale / self.bound)
        return torch.stack((shift, log_scale), dim=2).flatten(1, 2)


class InvertibleConv(nf.flows.Invertible1x1Conv):  # type: ignore[misc, unused-ignore]
    r"""normflows' 1×1 convolution in LU form, begun with ``torch.linalg.lu`` (its own calls a deprecated function)."""

    def __init__(self, num_channels: int) -> None:
        super().__init__(num_channels, use_lu=False)
        permutation, lower, upper = torch.linalg.lu(self.W.detach())
        del self.W
        diagonal = upper.diag()
        self.use_lu = True
        self.register_buffer("P", permutation)
        self.register_buffer("sign_S", torch.sign(diagonal))
        self.register_buffer("eye", torch.eye(num_channels))
        self.L = nn.Parameter(lower)
        self.U = nn.Parameter(torch.triu(upper, diagonal=1))
        self.log_S = nn.Parameter(torch.log(torch.abs(diagonal)))


def _step(channels: int, hidden_channels: int) -> list[nf.flows.Flow]:
    kept = (channels + 1) // 2
    network = CouplingNetwork(kept, hidden_channels, channels - kept)
    coupling = nf.flows.AffineCouplingBlock(network, scale=True, scale_map="exp")
    return [coupling, InvertibleConv(channels), nf.flows.ActNorm((channels, 1, 1))]


def _base_layers(shape: tuple[int, int, int], hidden_channels: int, factored_out: bool) -> list[nf.flows.Flow]:
    # The learned prior of a level, written as layers: a constant per latent value and, for a level whose second half of
    # channels is factored out, that half given the first.
    channels = shape[0]
    layers: list[nf.flows.Flow] = [nf.flows.AffineConstFlow(shape)]
    if factored_out:
        kept = (channels + 1) // 2
        network = CouplingNetwork(kept, hidden_channels, channels - kept)
        layers.append(nf.flows.AffineCouplingBlock(network, scale=True, scale_map="exp"))
    return layers


def glow(
    image_shape: Sequence[int],
    steps: Sequence[int],
    hidden_channels: Sequence[int],
    factor_out: bool = True,
    bins: int = 256,
) -> nf.MultiscaleFlow:
    r"""Glow with affine couplings, LU 1×1 convolutions and ActNorm, on pixels in [0, 1].

    Args:
        image_shape: (channels, height, width); height and width divisible by 2 to the number of levels.
        steps: Steps of flow per level, finest level first. Each level begins (seen from the image) with a squeeze of
            2×2 pixels into channels.
        hidden_channels: Width of the coupling networks per level, finest first.
        factor_out: Leave half of the channels behind after each level, as Glow does; otherwise all of them go on to
            the next level, which for small images costs little and fits better.
        bins: Grey levels of the data, 256 for 8 bits.

    Returns:
        A flow whose latents are standard normal under the model, a list of one tensor per level (coarsest first).

    Raises:
        ValueError: The image cannot be halved once per level, or ``hidden_channels`` has another length than ``steps``.
    """
    channels, height, width = image_shape
    if len(steps) != len(hidden_channels):
        raise ValueError(f"steps and hidden_channels need one entry per level, received {steps} and {hidden_channels}")
    if height % 2 ** len(steps) or width % 2 ** len(steps):
        raise ValueError(
            f"{len(steps)} levels need height and width divisible by {2 ** len(steps)}, received {height}×{width}"
        )
    coarsest = len(steps) - 1
    levels: list[list[nf.flows.Flow]] = []
    bases: list[nn.Module] = []
    for level in reversed(range(len(steps))):
        shape = (channels * 4 ** (level + 1), height // 2 ** (level + 1), width // 2 ** (level + 1))
        if factor_out:
            # Each squeeze takes four times the channels, each level left behind has taken half of them.
            shape = (shape[0] // 2**level, *shape[1:])
        if level == coarsest or factor_out:
            is_half = level != coarsest
            levels.append(_base_layers(shape, hidden_channels[level], factored_out=is_half))
            latent_shape = (shape[0] // 2, *shape[1:]) if is_half else shape
            bases.append(nf.distributions.DiagGaussian(latent_shape, trainable=False))
        for _ in range(steps[level]):
            levels[-1] += _step(shape[0], hidden_channels[level])
        levels[-1].append(nf.flows.Squeeze())
    merges = [nf.flows.Merge() for _ in bases[1:]]
    return nf.MultiscaleFlow(bases, levels, merges, PixelLogit(bins), class_cond=False)
