r"""The nearest real image that reaches the goal: what a counterfactual would be if one had only to look for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from captum_dcf.search import Goal, LeaveClass, Model, ReachClass

__all__ = ["NearestReal"]

IMAGES_AT_ONCE = 256


class NearestReal:
    r"""For each x the real image nearest to it, in pixels, of those that the model gives what the goal asks for.

    Of a goal of classes the image is labelled so as well, so that no mistake of the model is taken. A ceiling for
    metrics of realism, and no counterfactual: it is another digit, face or lung.

    Args:
        model: The explained model.
        references: Gives real images (M, C, H, W) and their labels (M,).
    """

    def __init__(self, model: Callable[..., Any], references: Callable[[], tuple[Tensor, Tensor]]) -> None:
        self._model = model
        self._references = references

    def __call__(self, images: Tensor, goal: Goal) -> Tensor:
        r"""Images of the shape of ``images`` (N, C, H, W), of the goal of each.

        Raises:
            ValueError: No real image reaches the goal of one of them.
        """
        real, labels = self._references()
        distances = torch.cdist(images.flatten(1), real.to(images).flatten(1))
        for row, nearest in enumerate(distances):
            rows = torch.full_like(labels, row, dtype=torch.int64)
            fits = goal.judge(self._outputs, rows).reached & _labelled_so(goal, labels, rows)
            if not fits.any():
                raise ValueError(f"none of the {len(real)} real images reaches the goal of image {row}")
            nearest[~fits] = torch.inf
        return real[distances.argmin(1)].to(images)

    # The model does not change in a run, and is asked once about all references.
    @cached_property
    @torch.no_grad()
    def _outputs(self) -> Tensor:
        real = self._references()[0]
        model = Model(self._model, len(real), kind=None)
        return torch.cat([model(batch) for batch in real.split(IMAGES_AT_ONCE)])


def _labelled_so(goal: Goal, labels: Tensor, rows: Tensor) -> Tensor:
    if isinstance(goal, ReachClass):
        return labels == goal.labels(rows)
    return labels != goal.labels(rows) if isinstance(goal, LeaveClass) else torch.ones_like(labels, dtype=torch.bool)
