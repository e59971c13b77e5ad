r"""The helix of Dombrowski et al. (2024): a one-dimensional data manifold in three dimensions, known exactly.

A parameter z gives the point (sin z, cos z, z). The tangent has a closed form and the distance nearly so: the theory of
a search in latent space can be checked against them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

__all__ = ["helix", "helix_distance", "helix_sample", "helix_tangent", "open_helix"]

# So many points as the paper draws in 5,000 steps of 500 would be of no more use than these.
_POINTS = {"train": 50_000, "test": 2_000}

# Each round narrows the bracket to two of its 256 intervals: after three of them it is below the spacing of float32.
_GRID = 257
_ROUNDS = 3


def helix(parameters: Tensor) -> Tensor:
    r"""Points (sin z, cos z, z) of the helix.

    Args:
        parameters: z, (N,) or (N, 1).

    Returns:
        Points (N, 3).

    Raises:
        ValueError: ``parameters`` has another shape.

    Examples:
        >>> helix(torch.zeros(1))
        tensor([[0., 1., 0.]])
    """
    z = _as_vector(parameters)
    return torch.stack((z.sin(), z.cos(), z), dim=1)


def helix_tangent(parameters: Tensor) -> Tensor:
    r"""Unit tangents (cos z, -sin z, 1) / √2 of the helix.

    Args:
        parameters: z, (N,) or (N, 1).

    Returns:
        Unit vectors (N, 3).

    Raises:
        ValueError: ``parameters`` has another shape.
    """
    z = _as_vector(parameters)
    return torch.stack((z.cos(), -z.sin(), torch.ones_like(z)), dim=1) / math.sqrt(2)


def helix_distance(points: Tensor) -> Tensor:
    r"""Euclidean distance of points to the infinite helix, by numeric minimisation over z.

    .. math:: d(x) = \min_z \| x - (\sin z, \cos z, z) \|_2

    Args:
        points: (N, 3).

    Returns:
        Distances (N,), at least 0.

    Raises:
        ValueError: ``points`` is not (N, 3).

    Examples:
        >>> helix_distance(torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        tensor([1., 0.])
    """
    if points.dim() != 2 or points.shape[1] != 3:
        raise ValueError(f"points must have the shape (N, 3), received {tuple(points.shape)}")
    # The nearest z lies within π of the point's own third coordinate: a whole turn towards it keeps sin and cos and
    # brings z nearer.
    center, half_width = points[:, 2], math.pi
    offsets = torch.linspace(-1, 1, _GRID, dtype=points.dtype, device=points.device)
    for _ in range(_ROUNDS):
        candidates = center[:, None] + half_width * offsets
        curve = torch.stack((candidates.sin(), candidates.cos(), candidates), dim=2)
        squared, nearest = (points[:, None] - curve).square().sum(2).min(1)
        center = candidates.gather(1, nearest[:, None]).squeeze(1)
        half_width *= 2 / (_GRID - 1)
    return squared.sqrt()


def helix_sample(count: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    r"""Draws points of the helix, z uniform in (-4, 4).

    Args:
        count: Number of points N.
        generator: Source of random numbers; a new one with seed 0 by default, so that the same points come each time.

    Returns:
        Points, float32 (N, 3), and their classes, int64 (N,): 1 where z > 0, else 0.

    Examples:
        >>> points, classes = helix_sample(500)
        >>> points.shape, classes.shape
        (torch.Size([500, 3]), torch.Size([500]))
    """
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    z = torch.rand(count, generator=generator) * 8 - 4
    return helix(z), (z > 0).long()


def open_helix(root: str | Path | None, split: str | None, image_shape: Sequence[int] | None) -> TensorDataset:
    r"""The source ``helix``: 50,000 points to train with or 2,000 others to test with, the same each time.

    Args:
        root: Not used: points are drawn.
        split: ``"train"`` or ``"test"``.
        image_shape: (3,) or None.

    Raises:
        ValueError: Another split or shape.
    """
    if split not in _POINTS:
        raise ValueError(f"split must be one of {sorted(_POINTS)} for the helix, received {split!r}")
    if image_shape is not None and tuple(image_shape) != (3,):
        raise ValueError(f"points of the helix have the shape (3,), received image_shape {tuple(image_shape)}")
    generator = torch.Generator().manual_seed(0 if split == "train" else 1)
    return TensorDataset(*helix_sample(_POINTS[split], generator))


def _as_vector(parameters: Tensor) -> Tensor:
    if parameters.dim() == 2 and parameters.shape[1] == 1:
        return parameters.squeeze(1)
    if parameters.dim() != 1:
        raise ValueError(f"parameters must have the shape (N,) or (N, 1), received {tuple(parameters.shape)}")
    return parameters
