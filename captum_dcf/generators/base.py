r"""Generator: what the search needs of a generative model."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Generator"]


class Generator(nn.Module, ABC):
    r"""Coordinates of the data: ``decode`` is the paper's g, from latents to images, and ``encode`` its inverse.

    A latent is always one tensor (N, D). Subclass it and write the two methods; everything else has a default.

    Attributes:
        exact: Whether ``decode(encode(x))`` is x up to rounding for every x (a flow), or only near it (an autoencoder).
        free: The slice of the D coordinates that a search may move; all of them by default.
        data_range: Least and greatest pixel value, or None where pixels have no bounds. A search clamps what it decodes
            to this range before it asks the classifier.

    Examples:
        >>> class Halved(Generator):
        ...     exact = True
        ...     def encode(self, x):
        ...         return 2 * x.flatten(1)
        ...     def decode(self, z):
        ...         return (z / 2).view(len(z), 1, 2, 2)
        >>> generator = Halved()
        >>> generator(torch.ones(3, 1, 2, 2)).shape
        torch.Size([3, 1, 2, 2])
    """

    exact: bool = False
    free: slice = slice(None)
    data_range: tuple[float, float] | None = None

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        r"""Images (N, C, H, W) to latents (N, D)."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        r"""Latents (N, D) to images (N, C, H, W), differentiable in ``z``."""

    def forward(self, x: Tensor) -> Tensor:
        r"""The reconstruction ``decode(encode(x))``, so that a generator is also the autoencoder that IM1 asks for."""
        return self.decode(self.encode(x))

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Log-density of images (N, C, H, W) in nats, (N,).

        Raises:
            TypeError: This generator has no density.
        """
        raise TypeError(f"{type(self).__name__} has no density: log_prob needs a generator with one, such as a flow")

    def typical_length(self, latents: Tensor) -> Tensor:
        r"""The length that a latent of this generator typically has, a tensor without dimensions.

        The default step of a search is a fixed share of it. Here: √D, the length of a standard normal latent in D
        dimensions, D counting the ``free`` coordinates only. A generator with another base distribution overrides it.

        Args:
            latents: Latents (N, D), for their number of dimensions, dtype and device.
        """
        free_dimensions = latents[:, self.free].shape[1]
        return torch.tensor(math.sqrt(free_dimensions), dtype=latents.dtype, device=latents.device)

    @contextmanager
    def constant(self) -> Iterator[None]:
        r"""A context in which parameters do not change, so that ``decode`` may keep what depends on them alone.

        A search is inside it from its first step to its last. Contexts may be nested, and several threads may be in
        their own at the same time. Here it does nothing.
        """
        yield
