r"""A plane as latent space and image at once: every step of a search on it can be followed by hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from captum_dcf.search import (
    Counterfactual,
    Goal,
    Problem,
    ReachClass,
    StepRule,
    UnitGradient,
    ascend,
)


def plane(points: Tensor) -> Tensor:
    return points


def two_logits(points: Tensor, rows: Tensor) -> Tensor:
    # Class 1 has a probability above 0.9 where 5 x₀ > log 9, that is beyond x₀ = 0.4394.
    return torch.stack((torch.zeros_like(points[:, 0]), 5 * points[:, 0]), dim=1)


def at(*coordinates: float) -> Tensor:
    return torch.tensor([[x, 0.25] for x in coordinates])


def run(
    start: Tensor,
    decode: Callable[[Tensor], Tensor] = plane,
    predict: Callable[[Tensor, Tensor], Tensor] = two_logits,
    goal: Goal = ReachClass(1, confidence=0.9),  # noqa: B008 (frozen)
    rule: StepRule = UnitGradient(0.5),  # noqa: B008 (frozen)
    max_steps: int = 50,
    latents: Tensor | None = None,
    refine: bool = False,
    keep_path: bool = False,
    **problem: object,
) -> Counterfactual:
    return ascend(
        start,
        start.clone() if latents is None else latents,
        Problem(decode, predict, goal, **problem),
        rule,
        max_steps,
        refine,
        keep_path,
    )


class Counting:
    r"""Wraps a function of a batch and counts and keeps what it was given."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.batches: list[Tensor] = []

    def __call__(self, batch: Tensor, *others: Tensor) -> Tensor:
        self.batches.append(batch.detach().clone())
        return self.function(batch, *others)

    @property
    def examples(self) -> int:
        return sum(map(len, self.batches))


def mixed_decode(points: Tensor) -> Tensor:
    # Row by its second coordinate: 1 as it is, 2 overflows beyond x₀ = 0.6, 3 is mirrored, 4 is not a number.
    kind = points[:, 1:].round()
    overflow = torch.where((kind == 2) & (points[:, :1] > 0.6), torch.inf, points)
    mirrored = torch.where(kind == 3, points * points.new_tensor([-1.0, 1.0]), overflow)
    return torch.where(kind == 4, torch.nan, mirrored)


MIXED = torch.tensor([[-1.0, 1.0], [-1.2, 2.0], [2.0, 1.0], [-0.4, 3.0], [-0.3, 4.0], [0.1, 1.0], [-30.0, 1.0]])


def overflowing(points: Tensor) -> Tensor:
    return torch.where(points.norm(dim=1, keepdim=True) > 0.7, torch.inf, points)
