r"""Less memory for decoders that have no inverse: some activations are kept, the others are computed again."""

from __future__ import annotations

import math

from torch import Tensor, nn

__all__ = ["Checkpointed"]


class Checkpointed(nn.Module):
    r"""A sequential decoder that keeps only the activations between its segments; the gradient computes the rest again.

    The counterpart of ``NormalizingFlowGenerator(flow, memory="constant")`` for an autoencoder or a GAN: memory falls
    to about the root of the number of layers, for one more evaluation of them.

    Args:
        layers: The decoder, an ``nn.Sequential``. It stays the same object and may go on being trained.
        segments: Number of segments, from 1 to the number of layers; by default the root of that.

    Raises:
        TypeError: ``layers`` is no ``nn.Sequential``, or ``segments`` no int.
        ValueError: ``segments`` is out of range.

    Examples:
        >>> decoder = nn.Sequential(*[nn.Linear(8, 8) for _ in range(16)])
        >>> Checkpointed(decoder).segments
        4
    """

    def __init__(self, layers: nn.Sequential, segments: int | None = None) -> None:
        super().__init__()
        if not isinstance(layers, nn.Sequential):
            raise TypeError(f"layers must be an nn.Sequential, received {type(layers).__name__}")
        if segments is not None and (isinstance(segments, bool) or not isinstance(segments, int)):
            raise TypeError(f"segments must be an int, received {type(segments).__name__}")
        if segments is not None and not 1 <= segments <= len(layers):
            raise ValueError(f"segments must lie between 1 and the {len(layers)} layers, received {segments}")
        self.layers = layers
        self.segments = segments or max(1, round(math.sqrt(len(layers))))

    def forward(self, z: Tensor) -> Tensor:
        r"""What ``layers`` gives for ``z``, (N, ...)."""
        # Where it is needed: with torch 2.3 it loads sympy, half a second of every program that imports the package.
        from torch.utils.checkpoint import checkpoint_sequential

        images: Tensor = checkpoint_sequential(self.layers, self.segments, z, use_reentrant=False)
        return images
