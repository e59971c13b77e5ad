r"""A plane as coordinates and image at once: every step of a search on it can be followed by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from captum_dcf.search import (
    Ascent,
    Counterfactual,
    Evaluation,
    Goal,
    Model,
    Move,
    Options,
    Problem,
    ReachClass,
    Searcher,
    StepRule,
    UnitGradient,
)
from captum_dcf.search import run as run_engine
from captum_dcf.search.searcher import State

Decode = Callable[[Tensor], Tensor]
Predict = Callable[[Tensor, Tensor], Tensor]


def plane(points: Tensor) -> Tensor:
    return points


def two_logits(points: Tensor, rows: Tensor) -> Tensor:
    # Class 1 has a probability above 0.9 where 5 x₀ > log 9, that is beyond x₀ = 0.4394.
    return torch.stack((torch.zeros_like(points[:, 0]), 5 * points[:, 0]), dim=1)


def at(*coordinates: float) -> Tensor:
    return torch.tensor([[x, 0.25] for x in coordinates])


class Plane:
    r"""Coordinates that are the images themselves, but for ``function``."""

    exact = True

    def __init__(
        self,
        function: Decode = plane,
        free: slice | Tensor = slice(None),
        data_range: tuple[float, float] | None = None,
        encode: Decode = plane,
    ) -> None:
        self.function, self.free, self.data_range, self.inverse = function, free, data_range, encode

    def encode(self, x: Tensor) -> Tensor:
        return self.inverse(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.function(z)

    def typical_length(self, z: Tensor) -> Tensor:
        return z.new_tensor(z[:, self.free].shape[1] ** 0.5)

    def log_prob(self, x: Tensor) -> Tensor:
        raise TypeError("a plane has no density")

    def check_ready(self) -> None:
        pass

    @contextmanager
    def constant(self) -> Iterator[None]:
        yield


def problem(
    start: Tensor,
    decode: Decode = plane,
    predict: Predict = two_logits,
    goal: Goal = ReachClass(1, confidence=0.9),  # noqa: B008 (frozen)
    terms: tuple[Any, ...] = (),
    softening: float = 0.0,
    **coordinates: Any,
) -> Problem:
    r"""The search for ``goal`` from points of the plane; ``predict`` is told the rows of what it is given."""
    model = Model(predict, len(start), (torch.arange(len(start)),))
    return Problem(start.clone(), model, goal, Plane(decode, **coordinates), terms, softening)


def run(
    start: Tensor,
    decode: Decode = plane,
    predict: Predict = two_logits,
    goal: Goal = ReachClass(1, confidence=0.9),  # noqa: B008 (frozen)
    rule: StepRule = UnitGradient(0.5),  # noqa: B008 (frozen)
    max_steps: int = 50,
    searcher: Searcher | None = None,
    on_end: Callable[[int], None] = lambda ended: None,
    terms: tuple[Any, ...] = (),
    softening: float = 0.0,
    free: slice | Tensor = slice(None),
    data_range: tuple[float, float] | None = None,
    encode: Decode = plane,
    **options: Any,
) -> Counterfactual:
    r"""A search on the plane, by steps of half a unit along the gradient where nothing else is said."""
    asked = problem(start, decode, predict, goal, terms, softening, free=free, data_range=data_range, encode=encode)
    return run_engine(asked, searcher or Ascent(rule), Options(**options), max_steps, on_end=on_end)


def judge(goal: Goal, output: Tensor, softening: float = 0.0) -> Any:
    r"""The verdict of a goal on the outputs of all its examples."""
    return goal.judge(output, torch.arange(len(output)), softening)


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


class Walk(Searcher):
    r"""The least that a searcher is: one unit along the first axis at a time, whatever the gradient."""

    gradient = False

    def start(self, problem: Problem, at: Evaluation) -> State:
        return {"count": torch.zeros_like(at.rows)}

    def step(self, problem: Problem, at: Evaluation, state: State) -> Move:
        return Move(at.points + at.points.new_tensor([1.0, 0.0]), {"count": state["count"] + 1})


def mixed_decode(points: Tensor) -> Tensor:
    # Row by its second coordinate: 1 as it is, 2 overflows beyond x₀ = 0.6, 3 is mirrored, 4 is not a number.
    kind = points[:, 1:].round()
    overflow = torch.where((kind == 2) & (points[:, :1] > 0.6), torch.inf, points)
    mirrored = torch.where(kind == 3, points * points.new_tensor([-1.0, 1.0]), overflow)
    return torch.where(kind == 4, torch.nan, mirrored)


MIXED = torch.tensor([[-1.0, 1.0], [-1.2, 2.0], [2.0, 1.0], [-0.4, 3.0], [-0.3, 4.0], [0.1, 1.0], [-30.0, 1.0]])


def overflowing(points: Tensor) -> Tensor:
    return torch.where(points.norm(dim=1, keepdim=True) > 0.7, torch.inf, points)


# Three classes on a bent plane: what one example needs, another does not.


def bent(points: Tensor) -> Tensor:
    return torch.tanh(points) + 0.3 * points.flip(1).sin()


def three_logits(points: Tensor, rows: Tensor) -> Tensor:
    x, y = points.unbind(1)
    return 4 * torch.stack((x + y, -x + y.square(), x.square() - y), dim=1)


def hill(points: Tensor, rows: Tensor) -> Tensor:
    # Class 1 has at most a probability of 0.88, on top of the hill at the origin.
    return torch.stack((torch.zeros_like(points[:, 0]), 2 - points.square().sum(1)), dim=1)


def first_coordinate(points: Tensor, rows: Tensor) -> Tensor:
    return points[:, 0]
