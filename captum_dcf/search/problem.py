r"""What is searched: a decoder, a model and a goal, over a batch of latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from captum_dcf.search.goal import Goal
from captum_dcf.search.rows import finite_rows

__all__ = ["Problem", "gradient_of"]

# Share of the data range within which a pixel counts as being at its bound, a fortieth of one of 256 grey levels.
AT_BOUND = 1e-4


@dataclass(frozen=True)
class Problem:
    r"""What is searched.

    Attributes:
        decode: Latents (n, D) to images (n, ...).
        predict: Images and the rows of the batch they belong to, (n,), to model outputs (n, ...).
        goal: What the output has to become; of the whole batch.
        free: The coordinates that may move, a slice or an int64 index of them.
        data_range: Images are clamped to it before the model sees them, and pixels within 1e-4 of its width are put on
            the bound; None for no bounds.
    """

    decode: Callable[[Tensor], Tensor]
    predict: Callable[[Tensor, Tensor], Tensor]
    goal: Goal
    free: slice | Tensor = field(default_factory=lambda: slice(None))
    data_range: tuple[float, float] | None = None

    def image(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        r"""The images of latents as the model will see them, and whether each decode was finite, (n,)."""
        decoded = self.decode(latents)
        finite = finite_rows(decoded)
        if self.data_range is not None:
            decoded = _StraightThroughClamp.apply(decoded, *self.data_range)
        return decoded, finite


def gradient_of(loss: Tensor, images_or_latents: Tensor) -> Tensor:
    r"""The gradient of one number.

    Raises:
        ValueError: It does not depend on them.
    """
    # Where trainable parameters are in the graph a loss requires gradients whether or not it depends on the inputs.
    gradient = torch.autograd.grad(loss, images_or_latents, allow_unused=True)[0] if loss.requires_grad else None
    if gradient is None:
        raise ValueError(
            "the output of forward_func does not depend differentiably on its input: "
            "is there a no_grad, a detach, an argmax or a detour through numpy in it?"
        )
    return gradient


class _StraightThroughClamp(torch.autograd.Function):
    # A pixel at a bound keeps its gradient: whether rounding left it just inside or just outside must not matter. For
    # the same reason one that is almost at a bound is put there. An even background otherwise carries rounding noise,
    # and which of its pixels wins a max-pool, hence the gradient, would depend on the size of the batch.

    @staticmethod
    def forward(ctx: Any, decoded: Tensor, low: float, high: float) -> Tensor:
        margin = AT_BOUND * (high - low)
        inside = decoded.clamp(low, high)
        inside = torch.where(inside < low + margin, low, inside)
        return torch.where(inside > high - margin, high, inside)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None
