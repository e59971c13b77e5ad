r"""Step rules: how a latent moves along the gradient of the goal's loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Adam", "State", "StepRule", "UnitGradient", "per_example_norm", "unit"]

# Share of the way of its steps that a search gets on by, at least, unless it is in circles. Those of MNIST that are get
# on by 0.03 to 0.14 of it; one that zigzags down a valley may get on by less than half, and arrives.
SHARE = 0.2
# How much shorter the steps of each further attempt are, and the shortest, in shares of the first: seven attempts.
SHORTER = 0.7
SHORTEST = 0.1

State = dict[str, Tensor]


class StepRule(ABC):
    r"""One step for a batch of latents. What it remembers lives in a dict of tensors with one row per example."""

    def start(self, z: Tensor) -> State:
        r"""The memory before the first step."""
        return {}

    @abstractmethod
    def step(self, z: Tensor, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        r"""The next latents (N, D) and memory, given the gradient of the loss, (N, D). Changes neither argument."""

    def again(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        r"""Where searches that cannot go on from ``z`` go instead, and with what memory.

        Those that are sent nowhere else end: by default all of them.
        """
        return z, state


@dataclass(frozen=True)
class UnitGradient(StepRule):
    r"""A step of fixed length against the gradient: z - ``length`` · ∇ / ‖∇‖, per example.

    A search that ``patience`` steps have not taken a fifth of their way goes in circles and hardly ever arrives. It
    begins again where it started, with steps of 0.7 the length, which lead another way, until they would be shorter
    than a tenth of ``length``. So does one that is caught, further on than its start, where no step leads on.

    Args:
        length: Length of a step in latent units, positive.
        patience: Steps after which this is looked at, at least 2.
    """

    length: float | Tensor
    patience: int = 100

    def __post_init__(self) -> None:
        if not 0 < float(self.length) < float("inf"):
            raise ValueError(f"the length of a step must be positive and finite, received {float(self.length)}")
        if isinstance(self.patience, bool) or not isinstance(self.patience, int):
            raise TypeError(f"patience must be an int, received {type(self.patience).__name__}")
        if self.patience < 2:
            raise ValueError(f"patience must be at least 2 steps, received {self.patience}")

    def start(self, z: Tensor) -> State:
        count = torch.zeros_like(z[:, :1], dtype=torch.int64)
        return {"start": z, "here": z, "length": torch.zeros_like(z[:, :1]) + self.length, "count": count}

    def step(self, z: Tensor, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        moved, count = z - state["length"] * unit(gradient), state["count"]
        is_due = count == self.patience
        if not is_due.any():
            return moved, {**state, "count": count + 1}
        here = state["here"]
        in_circles = is_due & (per_example_norm(z - here) < self.patience * state["length"] * SHARE)
        began, fresh = self.again(z, state)
        length = torch.where(in_circles, fresh["length"], state["length"])
        goes_back = in_circles & (began != z).any(1, keepdim=True)
        moved = torch.where(goes_back, began, z - length * unit(gradient))
        here = torch.where(in_circles, fresh["here"], torch.where(is_due, z, here))
        count = torch.where(goes_back, 0, torch.where(is_due, 1, count + 1))
        return moved, {**state, "here": here, "length": length, "count": count}

    def again(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        length = SHORTER * state["length"]
        is_worth_it = length > self.length * SHORTEST
        start = torch.where(is_worth_it, state["start"], z)
        length = torch.where(is_worth_it, length, state["length"])
        return start, {**state, "here": start, "length": length, "count": torch.zeros_like(state["count"])}


@dataclass(frozen=True)
class Adam(StepRule):
    r"""Adam (Kingma and Ba, 2015), each example with its own moments: the step rule of the paper.

    Args:
        lr: Learning rate; the paper uses 5e-2 for latents of MNIST and 5e-3 for those of larger images.
        betas: Decay of the first and second moment.
        eps: Added to the root of the second moment.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"the learning rate must be positive and finite, received {self.lr}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), received {self.betas}")
        if not 0 <= self.eps < float("inf"):
            raise ValueError(f"eps must be 0 or more and finite, received {self.eps}")

    def start(self, z: Tensor) -> State:
        # In half precision eps and small squares round to zero.
        zeros = torch.zeros_like(z, dtype=torch.promote_types(z.dtype, torch.float32))
        return {"mean": zeros, "square": zeros, "count": zeros[:, :1]}

    def step(self, z: Tensor, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        first, second = self.betas
        gradient = gradient.to(state["mean"])
        count = state["count"] + 1
        mean = first * state["mean"] + (1 - first) * gradient
        square = second * state["square"] + (1 - second) * gradient.square()
        corrected = mean / (1 - first**count)
        root = (square / (1 - second**count)).sqrt()
        stepped = z - self.lr * corrected / (root + self.eps)
        return stepped.to(z), {"mean": mean, "square": square, "count": count}


def per_example_norm(rows: Tensor) -> Tensor:
    r"""Euclidean length of each row, (N, 1)."""
    # In half precision the squares of many coordinates leave the finite numbers.
    wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
    return wide.square().sum(1, keepdim=True).sqrt().to(rows)


def unit(gradient: Tensor) -> Tensor:
    r"""Rows of length one in the direction of the gradient, (N, D); zero where it is."""
    # Divided by the largest entry first: the squares of very small or large entries leave the finite numbers.
    largest = gradient.abs().amax(1, keepdim=True)
    scaled = gradient / torch.where(largest > 0, largest, torch.ones_like(largest))
    return scaled / per_example_norm(scaled).clamp_min(1.0)
