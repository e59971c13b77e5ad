r"""Generator: the coordinates that a generative model gives to the data."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_dcf.search.support import Support

__all__ = ["Generator"]


class Generator(nn.Module, ABC):
    r"""Coordinates of the data: ``decode`` is the paper's g, from latents to images, and ``encode`` its inverse.

    A latent is always one tensor (N, D). Subclass it and write the two methods; everything else has a default.

    Attributes:
        exact: Whether ``decode(encode(x))`` is x up to rounding for every x (a flow), or only near it (an autoencoder).
        free: The coordinates that a search may move, a slice or an int64 index of the D; all of them by default.
        data_range: Least and greatest pixel value, or None where pixels have no bounds. A search clamps what it decodes
            to this range before it asks the classifier.
        support: How plausible the training images are to the generator, see
            :func:`~captum_dcf.generators.measure_support`; None where nobody has measured it. A search stays within.

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
    free: slice | Tensor = slice(None)
    data_range: tuple[float, float] | None = None
    support: Support | None = None

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        r"""Images (N, C, H, W) to latents (N, D).

        A search calls it without gradients; an inversion by gradient descent enters ``torch.enable_grad()`` itself.
        """

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        r"""Latents (N, D) to images (N, C, H, W), differentiable in ``z``, of its dtype and on its device."""

    def forward(self, x: Tensor) -> Tensor:
        r"""The reconstruction ``decode(encode(x))``, so that a generator is also the autoencoder that IM1 asks for."""
        return self.decode(self.encode(x))

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Log-density of images (N, C, H, W) in nats, (N,).

        Raises:
            TypeError: This generator has no density.
        """
        raise TypeError(f"{type(self).__name__} has no density: log_prob needs a generator with one, such as a flow")

    def typical_length(self, z: Tensor) -> Tensor:
        r"""The length that a latent of this generator typically has, a tensor without dimensions.

        The default step of a search is a fixed share of it. Here: √D, the length of a standard normal latent in D
        dimensions, D counting the ``free`` coordinates only. A generator with another base distribution overrides it.

        Args:
            z: Latents (N, D), for their number of dimensions, dtype and device.

        Raises:
            ValueError: No coordinate is free.
        """
        free_dimensions = z[:, self.free].shape[1]
        if not free_dimensions:
            raise ValueError(
                f"{type(self).__name__} has no free coordinate to search in: free={self.free} of {z.shape[1]}"
            )
        return torch.tensor(math.sqrt(free_dimensions), dtype=z.dtype, device=z.device)

    def check_ready(self) -> None:
        r"""Refuses what a search would change, or what depends on chance. A generator that asks for more overrides it.

        Raises:
            ValueError: A layer takes its parameters from the first batch it sees, and has seen none; or batch norm or
                dropout is in training mode.
        """
        for name, part in self.named_modules():
            place = f"{type(self).__name__}.{name} ({type(part).__name__})"
            # ActNorm of normflows, in a flow or in a generator of one's own around it.
            if not getattr(part, "data_dep_init_done", True):
                raise ValueError(f"{place} has not seen data yet: train the flow first")
            draws = isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0
            if getattr(part, "training", False) and (draws or isinstance(part, nn.modules.batchnorm._BatchNorm)):
                raise ValueError(f"{place} is in training mode: call .eval() on the generator first")

    @contextmanager
    def constant(self) -> Iterator[None]:
        r"""A context in which parameters do not change, so that ``decode`` may keep what depends on them alone.

        A search is inside it from its first step to its last. Contexts may be nested, and several threads may be in
        their own at the same time. Here it does nothing.
        """
        yield

    def __getattr__(self, name: str) -> Any:
        # Without this, the first thing that fails would be an internal dictionary of nn.Module.
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}.__init__ must call super().__init__() first")
        return super().__getattr__(name)
