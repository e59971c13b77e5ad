r"""Step rules: how a gradient moves a point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from captum_dcf.search.numbers import check_int
from captum_dcf.search.rows import row_norm
from captum_dcf.search.searcher import State

__all__ = ["Adam", "StepRule", "UnitGradient", "check_length", "unit"]


class StepRule(ABC):
    r"""One step for a batch of points. What it remembers lives in a dict of tensors with one row per example.

    Attributes:
        patience: Steps after which a search that got on by less than a fifth of their way restarts with shorter ones.
            Only where the memory has a ``"length"``.
    """

    patience: int = 100

    def start(self, z: Tensor) -> State:
        r"""The memory before the first step, for points (n, D).

        A rule whose steps are equally long names their ``"length"`` here, (n, 1) or (n,), if searches that circle are
        to restart with shorter ones.
        """
        return {}

    @abstractmethod
    def step(self, z: Tensor, gradient: Tensor, scale: Tensor, state: State) -> tuple[Tensor, State]:
        r"""The next points and memory. Changes none of its arguments.

        Args:
            z: Points (n, D).
            gradient: Of the loss, (n, D).
            scale: What to multiply the step of each example with, in (0, 1], (n, 1).
            state: The memory.
        """


@dataclass(frozen=True, eq=False)
class UnitGradient(StepRule):
    r"""A step of fixed length against the gradient: z - ``length`` · ∇ / ‖∇‖, per example.

    Args:
        length: Length of a step in latent units, positive; or a function of the start points (n, D) that gives one for
            all, or one each, (n, 1) or (n,).
        patience: Steps after which a search that got on by less than a fifth of their way restarts, at least 2.
    """

    length: float | Tensor | Callable[[Tensor], Tensor]
    patience: int = 100

    def __post_init__(self) -> None:
        if not callable(self.length):
            check_length("the length of a step", self.length)
        check_int("patience", self.patience, at_least=2)

    def start(self, z: Tensor) -> State:
        length = self.length(z) if callable(self.length) else self.length
        length = torch.as_tensor(length, dtype=z.dtype, device=z.device)
        return {"length": length.reshape(-1, 1).expand(len(z), 1)}

    def step(self, z: Tensor, gradient: Tensor, scale: Tensor, state: State) -> tuple[Tensor, State]:
        return z - scale * state["length"] * unit(gradient), state


@dataclass(frozen=True, eq=False)
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
        for name, value in (("lr", self.lr), ("eps", self.eps)):
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"{name} must be a number, received {type(value).__name__}")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"the learning rate must be positive and finite, received {self.lr}")
        if not isinstance(self.betas, (tuple, list)) or len(self.betas) != 2:
            raise ValueError(f"betas must be two numbers in [0, 1), received {self.betas!r}")
        if not all(isinstance(beta, Real) and 0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), received {self.betas!r}")
        if not 0 <= self.eps < float("inf"):
            raise ValueError(f"eps must be 0 or more and finite, received {self.eps}")

    def start(self, z: Tensor) -> State:
        # In half precision eps and small squares round to zero.
        zeros = torch.zeros_like(z, dtype=torch.promote_types(z.dtype, torch.float32))
        return {"mean": zeros, "square": zeros, "count": zeros[:, :1]}

    def step(self, z: Tensor, gradient: Tensor, scale: Tensor, state: State) -> tuple[Tensor, State]:
        first, second = self.betas
        gradient = gradient.to(state["mean"])
        count = state["count"] + 1
        mean = first * state["mean"] + (1 - first) * gradient
        square = second * state["square"] + (1 - second) * gradient.square()
        corrected = mean / (1 - first**count)
        root = (square / (1 - second**count)).sqrt()
        stepped = z - scale * self.lr * corrected / (root + self.eps)
        return stepped.to(z), {"mean": mean, "square": square, "count": count}


def check_length(noun: str, length: Any) -> None:
    r"""Raises a TypeError or ValueError for what is no positive and finite number."""
    if not isinstance(length, (Real, Tensor)) or isinstance(length, bool):
        raise TypeError(f"{noun} must be a number, received {type(length).__name__}")
    if isinstance(length, Tensor) and length.numel() != 1:
        raise ValueError(f"{noun} must be one number, received {tuple(length.shape)}")
    if not 0 < float(length) < float("inf"):
        raise ValueError(f"{noun} must be positive and finite, received {float(length)}")


def unit(gradient: Tensor) -> Tensor:
    r"""Rows of length one in the direction of the gradient, (n, D); zero where it is."""
    # Divided by the largest entry first: the squares of very small or large entries leave the finite numbers.
    largest = gradient.abs().amax(1, keepdim=True)
    scaled = gradient / torch.where(largest > 0, largest, torch.ones_like(largest))
    return scaled / row_norm(scaled).clamp_min(1.0)
