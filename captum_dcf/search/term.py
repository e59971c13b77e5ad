r"""Terms: what a method adds to the loss of a goal, and what it asks of an image beside the goal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["PixelDistance", "ReconstructionDistance", "SquaredDistance", "Term"]

# Images (n, ...), the points they were decoded from (n, D) and their rows (n,), to a loss (n,) and whether the image is
# allowed (n,), None where all are. An image that is not allowed does not reach the goal.
Term = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class PixelDistance:
    r"""``weight`` · ‖x' - x‖₁, per example.

    The slope of an absolute value is its sign. Within ``rounding`` it rises evenly here: a reconstruction by a flow
    differs from the input by rounding only, whose sign means nothing and depends on the size of the batch.
    """

    inputs: Tensor
    weight: float
    rounding: float = 1e-3

    def __call__(self, images: Tensor, points: Tensor, rows: Tensor) -> tuple[Tensor, None]:
        change = (images - self.inputs[rows]).flatten(1)
        # A sum over many pixels is too much for half precision, of which older versions of torch have no gradient here.
        change = change.to(torch.promote_types(change.dtype, torch.float32))
        distance = F.smooth_l1_loss(change, torch.zeros_like(change), reduction="none", beta=self.rounding)
        return self.weight * distance.sum(1), None


@dataclass(frozen=True)
class SquaredDistance:
    r"""‖x' - x‖₂², per example."""

    inputs: Tensor

    def __call__(self, images: Tensor, points: Tensor, rows: Tensor) -> tuple[Tensor, None]:
        return (images - self.inputs[rows]).flatten(1).square().sum(1), None


@dataclass(frozen=True)
class ReconstructionDistance:
    r"""``weight`` · ‖AE(x') - x'‖₂², per example, with an autoencoder from images to images of the same shape."""

    autoencoder: Callable[[Tensor], Tensor]
    weight: float

    def __call__(self, images: Tensor, points: Tensor, rows: Tensor) -> tuple[Tensor, None]:
        reconstructed = self.autoencoder(images.clone())
        if not isinstance(reconstructed, Tensor):
            raise TypeError(f"the autoencoder must return a tensor, received {type(reconstructed).__name__}")
        if reconstructed.shape != images.shape:
            raise ValueError(
                f"the autoencoder must return images of the shape it is given: {tuple(images.shape)}, "
                f"received {tuple(reconstructed.shape)}"
            )
        return self.weight * (reconstructed - images).flatten(1).square().sum(1), None
