r"""FISTA, batched: the smallest and sparsest change of images that lowers a smooth loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from captum_dcf.attr._outcome import clamp
from captum_dcf.search.result import Status
from captum_dcf.search.rows import finite_rows

__all__ = ["elastic_net", "fista", "soft_threshold"]


def soft_threshold(change: Tensor, threshold: float) -> Tensor:
    r"""sign(δ) · max(|δ| - threshold, 0): exact zeros wherever |δ| does not exceed the threshold."""
    return change.sign() * (change.abs() - threshold).clamp_min(0)


def elastic_net(change: Tensor, beta: float) -> Tensor:
    r"""β ‖δ‖₁ + ‖δ‖₂² per example, (n,)."""
    flat = change.flatten(1)
    return beta * flat.abs().sum(1) + flat.square().sum(1)


def fista(
    inputs: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    observe: Callable[[Tensor, Tensor], Any],
    threshold: float,
    lr: float,
    iterations: int,
    data_range: tuple[float, float] | None,
) -> tuple[Tensor, Tensor]:
    r"""Lowers ``loss`` + ‖·‖₁ from ``inputs``: x₊ = x₀ + S(y - η_k ∇loss(y) - x₀), y = x₊ + k/(k+3) (x₊ - x).

    η_k = ``lr`` √(1 - k/K) and S is the soft threshold, whose width does not depend on η_k, as in the code of
    Dhurandhar et al. and of Van Looveren and Klaise. An example whose every pixel falls under the threshold at x₀
    itself would stay there, since η_k only falls; it ends at once, as does one whose gradient is not finite.

    Args:
        inputs: x₀, (n, ...).
        loss: The smooth part for images and the rows of ``inputs`` they belong to, (m,) for m of them.
        observe: Is shown each x₊ and its rows.
        threshold: Width of the soft threshold.
        lr: η₀.
        iterations: K.
        data_range: Images are clamped to it; None for no bounds.

    Returns:
        Iterations of each example, and how it ended: BEST_EFFORT after all of them, STALLED or NOT_FINITE, int64 (n,).
    """
    rows = torch.arange(len(inputs), device=inputs.device)
    steps = torch.zeros_like(rows)
    endings = torch.full_like(rows, int(Status.BEST_EFFORT))
    state = _State(rows, inputs, inputs, inputs)
    for k in range(iterations):
        if not len(state.rows):
            break
        gradient = _gradient(loss, state)
        rate = lr * (1 - k / iterations) ** 0.5
        change = soft_threshold(state.point - rate * gradient - state.start, threshold)
        image = clamp(state.start + change, data_range)
        steps[state.rows] += 1
        finite = finite_rows(gradient)
        resting = torch.stack([_same(part, state.start) for part in (image, state.point, state.last)]).all(0)
        endings[state.rows[resting]] = Status.STALLED
        endings[state.rows[~finite]] = Status.NOT_FINITE
        moved = _State(state.rows, state.start, clamp(image + k / (k + 3) * (image - state.last), data_range), image)
        state = moved.take(finite & ~resting)
        if len(state.rows):
            observe(state.last, state.rows)
    return steps, endings


@dataclass(frozen=True)
class _State:
    """The examples still iterating, one row each."""

    rows: Tensor
    start: Tensor  # x₀
    point: Tensor  # y, where the next gradient is taken
    last: Tensor  # x₊ of the last iteration

    def take(self, keep: Tensor) -> _State:
        return _State(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})


def _gradient(loss: Callable[[Tensor, Tensor], Tensor], state: _State) -> Tensor:
    with torch.enable_grad():
        point = state.point.detach().requires_grad_()
        return torch.autograd.grad(loss(point, state.rows).sum(), point)[0]


def _same(images: Tensor, others: Tensor) -> Tensor:
    return (images == others).flatten(1).all(1)
