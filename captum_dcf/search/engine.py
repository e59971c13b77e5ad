r"""The one loop: candidates are proposed, judged and recorded until every example has ended.

Each round judges one candidate per searching example. An example that has ended leaves at once and one that waits takes
its place, so the work is the number of examples plus the sum of their steps, whatever the slowest needs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from captum_dcf.search.coordinates import encode
from captum_dcf.search.memory import is_out_of_memory
from captum_dcf.search.options import Options
from captum_dcf.search.polish import bisect
from captum_dcf.search.problem import Evaluation, Problem
from captum_dcf.search.record import RUNNING, Record
from captum_dcf.search.result import Counterfactual, Status
from captum_dcf.search.searcher import Searcher, State

__all__ = ["run"]

T = TypeVar("T")

# What "auto" begins with. On two cores the shipped flow judges no more images a second in larger batches.
AUTO_SIZE = 256
# The share of the window that has to be free before others enter: encoding one image at a time would be slow.
REFILL = 0.25


def run(
    problem: Problem,
    searcher: Searcher,
    options: Options,
    max_steps: int,
    has_latents: bool = True,
    on_end: Callable[[int], None] = lambda ended: None,
) -> Counterfactual:
    r"""Searches counterfactuals of all inputs of a problem.

    Args:
        problem: What is searched.
        searcher: Where the candidates lie.
        options: Those of the call.
        max_steps: Most steps of one example.
        has_latents: Whether the points are latents that the result is to name.
        on_end: Called after each round with the number of examples that have ended.

    Returns:
        The result; its counterfactuals are finite if the inputs are.
    """
    record = Record(problem, options.search_unreconstructed, options.keep_path)
    window = _Window(problem, searcher, record, options, max_steps)
    deadline = time.monotonic() + (math.inf if options.max_seconds is None else options.max_seconds)
    while window.is_busy():
        if time.monotonic() >= deadline:
            window.stop()
        window.fill()
        if window.at is not None:
            window.advance()
        on_end(window.ended)
    if options.refine:
        bisect(problem, record, window.size)
    return record.freeze(has_latents)


class _Window:
    """The examples that are searched at a time: who waits, who searches, and with what state."""

    def __init__(self, problem: Problem, searcher: Searcher, record: Record, options: Options, max_steps: int) -> None:
        self.problem, self.searcher, self.record, self.max_steps = problem, searcher, record, max_steps
        self.latents = options.latents
        self.adapts = options.internal_batch_size == "auto"
        size = AUTO_SIZE if self.adapts else options.internal_batch_size
        self.waiting = torch.arange(len(problem.inputs), device=problem.inputs.device)
        self.size = len(self.waiting) if size is None else min(int(size), len(self.waiting))
        self.at: Evaluation | None = None
        self.state: State = {}
        self.parked: list[tuple[Evaluation, State]] = []  # put aside when memory ran out
        self.stopped = False

    @property
    def ended(self) -> int:
        busy = [self.at, *(at for at, _ in self.parked)]
        return len(self.problem.inputs) - len(self.waiting) - sum(len(at.rows) for at in busy if at is not None)

    def is_busy(self) -> bool:
        return self.at is not None or len(self.waiting) > 0 or len(self.parked) > 0

    def stop(self) -> None:
        """Ends all searches; those that wait are still judged, so that the result knows their reconstructions."""
        self.stopped = True
        for at in [self.at, *(at for at, _ in self.parked)]:
            if at is not None:
                self.record.end(at.rows, Status.TIME_LIMIT)
        self.at, self.parked = None, []

    def fill(self) -> None:
        """Lets those that wait take the places that are free."""
        if self.parked and self.at is None:
            self._resume()
        while len(self.waiting) and self._room() >= (max(1, self.size * REFILL) if self.at is not None else 1):
            if not self._admit(self.waiting[: self._room()]):
                self.size = max(1, min(self.size, self._room()) // 2)

    def advance(self) -> None:
        """One round: a candidate of each searching example is proposed, judged and recorded."""
        at, state = self._searching()
        following = self._attempt(lambda: self._follow(at, state), len(at.rows))
        if following is None:
            # Half of them is tried again, and the other half later. A step may be asked for twice.
            self.size = len(at.rows) // 2
            self.parked.append((at, state))
            self._resume()
            return
        self.at, self.state = following[0], following[1]

    def _resume(self) -> None:
        """Goes on with those that were put aside, as many of them as the window holds."""
        at, state = self.parked.pop()
        first = torch.arange(len(at.rows), device=at.rows.device) < self.size
        if not first.all():
            self.parked.append((at.take(~first), _take(state, ~first)))
            at, state = at.take(first), _take(state, first)
        self.at, self.state = at, state

    def _follow(self, at: Evaluation, state: State) -> tuple[Evaluation | None, State]:
        move = self.searcher.step(self.problem, at, state)
        rows, points, state = at.rows, move.points, move.state
        ended = None if move.ended is None else move.ended != RUNNING
        if ended is not None and ended.any():
            rows, points, state = rows[~ended], points[~ended], _take(state, ~ended)
        following = self.problem.evaluate(points, rows, self.searcher.gradient) if len(rows) else None
        # From here on nothing can run out of memory, so what is written is written once.
        if ended is not None and move.ended is not None and len(rows) < len(at.rows):
            self.record.end(at.rows[ended], move.ended[ended])
        if following is None:
            return None, {}
        self.record.update(following, self.searcher.distance(self.problem, following, state))
        goes_on = self.record.steps[rows] < self.max_steps
        if self.searcher.stops_at_goal:
            goes_on &= ~following.reached
        if goes_on.all():
            return following, state
        self.record.end_at_limit(rows[~goes_on])
        return (following.take(goes_on), _take(state, goes_on)) if goes_on.any() else (None, {})

    def _admit(self, rows: Tensor) -> bool:
        """Judges inputs and reconstructions of examples and begins their searches; False if memory does not do."""
        judged = self._attempt(lambda: self._judge(rows), len(rows))
        if judged is None:
            return False
        at, fresh, state = judged
        self.waiting = self.waiting[len(rows) :]
        self.record.begin_paths(at)
        if self.stopped:
            self.record.end(fresh.rows, Status.TIME_LIMIT)
        elif len(fresh.rows):
            if self.at is not None:
                fresh, state = self.at.join(fresh), {name: torch.cat((self.state[name], state[name])) for name in state}
            self.at, self.state = fresh, state
        return True

    def _judge(self, rows: Tensor) -> tuple[Evaluation, Evaluation, State]:
        """The first judgement of some examples, that of those to be searched, and the state of these."""
        output, verdict = self.problem.judge_inputs(rows)
        inputs = self.problem.inputs[rows]
        points = encode(self.problem.coordinates, inputs) if self.latents is None else self.latents[rows]
        at = self.problem.evaluate(points, rows, self.searcher.gradient)
        searches = self.record.admit(at, output, verdict)
        fresh = at if searches.all() else at.take(searches)
        state = self.searcher.start(self.problem, fresh) if len(fresh.rows) and not self.stopped else {}
        return at, fresh, state

    def _attempt(self, work: Callable[[], T], examples: int) -> T | None:
        """What ``work`` gives, or None if memory ran out and fewer examples might do."""
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not self.adapts or examples == 1 or not is_out_of_memory(error):
                raise
        # The caller tries again from here, not from within the except block: there the traceback holds the tensors.
        return None

    def _searching(self) -> tuple[Evaluation, State]:
        if self.at is None:
            raise RuntimeError("no example is searching")
        return self.at, self.state

    def _room(self) -> int:
        return self.size - (0 if self.at is None else len(self.at.rows))


def _take(state: State, keep: Tensor) -> State:
    return {name: value[keep] for name, value in state.items()}
