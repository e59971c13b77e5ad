r"""Bisection of the last step: the shortest part of it that still reaches the goal."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from captum_dcf.search.rows import half_way, like

__all__ = ["bisect"]

# A step halved so often is a 64th of itself.
HALVINGS = 6


def bisect(
    before: Tensor,
    after: Tensor,
    images: Tensor,
    scores: Tensor,
    judge: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]],
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Moves latents that reach a goal back towards ones that do not, as far as the goal stays reached.

    Args:
        before: Latents that do not reach the goal, (N, D).
        after: Latents that do, (N, D).
        images: The images of ``after``.
        scores: The scores of ``after``, (N,).
        judge: Latents to their images, scores and whether they reach the goal.

    Returns:
        Latents that reach the goal, their images and scores; six decodes per example were spent.
    """
    near, far = before, after
    for _ in range(HALVINGS):
        middle = half_way(near, far)
        middle_images, middle_scores, reached = judge(middle)
        far = torch.where(reached[:, None], middle, far)
        near = torch.where(reached[:, None], near, middle)
        images = torch.where(like(reached, images), middle_images, images)
        scores = torch.where(reached, middle_scores, scores)
    return far, images, scores
