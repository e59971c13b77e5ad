r"""Searcher: what a method is to the loop. It says where the next candidate of each example lies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from captum_dcf.search.problem import Evaluation, Problem

__all__ = ["Move", "Searcher", "State"]

# What a searcher remembers: tensors with one row per searching example, none of them without dimensions.
State = dict[str, Tensor]


class Move(NamedTuple):
    r"""Where to go next.

    Attributes:
        points: The next candidates, (n, D).
        state: What goes with them.
        ended: A :class:`Status` for those with nothing more to try, ``RUNNING`` for the others, int64 (n,); None where
            all go on.
    """

    points: Tensor
    state: State
    ended: Tensor | None = None


class Searcher(ABC):
    r"""Proposes candidates; the loop judges them, keeps the best and knows when to stop.

    Attributes:
        gradient: Whether candidates are to be judged with a gradient.
        stops_at_goal: Whether an example ends with the first candidate that reaches the goal. A searcher that looks for
            a nearer one says False, and ends examples itself.
    """

    gradient: bool = True
    stops_at_goal: bool = True

    @abstractmethod
    def start(self, problem: Problem, at: Evaluation) -> State:
        r"""The state of examples whose reconstructions have been judged, ``at``."""

    @abstractmethod
    def step(self, problem: Problem, at: Evaluation, state: State) -> Move:
        r"""The next candidates, given the judgement of the last ones. Pure: it may be called again with the same.

        It may ask ``problem.evaluate`` itself. What runs long is cut into steps, so that a time limit holds.
        """

    def distance(self, problem: Problem, at: Evaluation, state: State) -> Tensor:
        r"""What is to be small among candidates that reach the goal, (n,). By default the first one is kept."""
        return torch.zeros_like(at.score)
