r"""The one loop: candidates are proposed, judged and recorded until every example has ended.

Each round judges one candidate per searching example. An example that has ended leaves at once and one that waits takes
its place, so the work is the number of examples plus the sum of their steps, whatever the slowest needs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from captum_dcf.search.coordinates import encode
from captum_dcf.search.memory import smaller_size
from captum_dcf.search.options import Options
from captum_dcf.search.plausibility import plausibilities
from captum_dcf.search.polish import bisect
from captum_dcf.search.problem import Evaluation, Problem
from captum_dcf.search.record import RUNNING, Record
from captum_dcf.search.result import Counterfactual, Status
from captum_dcf.search.searcher import Searcher, State

__all__ = ["run"]

# What "auto" begins with. On two cores the shipped flow judges no more images a second in larger batches.
AUTO_SIZE = 256
# The share of the window that has to be free before others enter. Encoding a few at a time is slow: with a window of 64
# of MNIST a half gives 50 counterfactuals a second on one core, a quarter 44, an eighth 39.
REFILL = 0.5


def run(
    problem: Problem,
    searcher: Searcher,
    options: Options,
    max_steps: int,
    has_latents: bool = True,
    on_end: Callable[[int], None] | None = None,
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
    while True:
        if time.monotonic() >= deadline:
            window.stop()
        if len(window.waiting) or window.parked:
            window.fill()
        if window.group is None:
            break
        window.advance(window.group)
        if on_end is not None:
            on_end(window.ended())
    if on_end is not None:
        on_end(window.ended())
    if options.refine:
        bisect(problem, record, window.size, window.adapts, deadline)
    return record.freeze(has_latents, plausibilities(problem, record, window.size, window.adapts))


class _Group(NamedTuple):
    """Examples that are searched together: their last judgement, and what the searcher remembers of them."""

    at: Evaluation
    state: State

    def take(self, keep: Tensor) -> _Group:
        return _Group(self.at.take(keep), {name: value[keep] for name, value in self.state.items()})

    def join(self, other: _Group) -> _Group:
        state = {name: torch.cat((value, other.state[name])) for name, value in self.state.items()}
        return _Group(self.at.join(other.at), state)


class _Window:
    """The examples that are searched at a time: who waits, and who searches."""

    def __init__(self, problem: Problem, searcher: Searcher, record: Record, options: Options, max_steps: int) -> None:
        self.problem, self.searcher, self.record, self.max_steps = problem, searcher, record, max_steps
        self.latents = options.latents
        self.adapts = options.internal_batch_size == "auto"
        size = AUTO_SIZE if self.adapts else options.internal_batch_size
        self.waiting = torch.arange(len(problem.inputs), device=problem.inputs.device)
        self.size = len(self.waiting) if size is None else min(int(size), len(self.waiting))
        self.group: _Group | None = None
        self.parked: list[_Group] = []  # put aside when memory ran out
        self.stopped = False

    def ended(self) -> int:
        """The number of examples that have ended."""
        busy = sum(len(group.at.rows) for group in (self.group, *self.parked) if group is not None)
        return len(self.problem.inputs) - len(self.waiting) - busy

    def stop(self) -> None:
        """Ends all searches; those that wait are still judged, so that the result knows their reconstructions."""
        self.stopped = True
        for group in (self.group, *self.parked):
            if group is not None:
                self.record.end(group.at.rows, Status.TIME_LIMIT)
        self.group, self.parked = None, []

    def fill(self) -> None:
        """Lets those that were put aside, and then those that wait, take the places that are free."""
        if self.parked and self.group is None:
            self._resume()
        while len(self.waiting):
            room = self.size - (0 if self.group is None else len(self.group.at.rows))
            if room < (1 if self.group is None else max(1, self.size * REFILL)):
                return
            self._admit(self.waiting[:room])

    def advance(self, group: _Group) -> None:
        """One round: a candidate of each example is proposed, judged and recorded."""
        try:
            self.group = self._follow(group)
            return
        except (RuntimeError, MemoryError) as error:
            self.size = smaller_size(error, len(group.at.rows), self.adapts)
        # Not within the except block, whose traceback holds the tensors. A step may be asked for twice.
        self.parked.append(group)
        self._resume()

    def _resume(self) -> None:
        """Goes on with those that were put aside, as many of them as the window holds."""
        group = self.parked.pop()
        first = torch.arange(len(group.at.rows), device=group.at.rows.device) < self.size
        if not first.all():
            self.parked.append(group.take(~first))
            group = group.take(first)
        self.group = group

    def _follow(self, group: _Group) -> _Group | None:
        at, (points, state, ended) = group.at, self.searcher.step(self.problem, group.at, group.state)
        rows = at.rows
        if ended is not None and (ended != RUNNING).any():
            goes_on = ended == RUNNING
            self.record.end(rows[~goes_on], ended[~goes_on])
            if not goes_on.any():
                return None
            rows, points, state = rows[goes_on], points[goes_on], {name: one[goes_on] for name, one in state.items()}
        at = self.problem.evaluate(points, rows, self.searcher.gradient)
        self.record.update(at, self.searcher.distance(self.problem, at, state))
        goes_on = self.record.steps[rows] < self.max_steps
        if self.searcher.stops_at_goal:
            goes_on &= ~at.reached
        if goes_on.all():
            return _Group(at, state)
        self.record.end_at_limit(rows[~goes_on])
        return _Group(at, state).take(goes_on) if goes_on.any() else None

    def _admit(self, rows: Tensor) -> None:
        """Judges inputs and reconstructions of examples, and begins the searches of those that need one."""
        try:
            at, fresh = self._judge(rows)
        except (RuntimeError, MemoryError) as error:
            self.size = smaller_size(error, len(rows), self.adapts)
            return
        self.waiting = self.waiting[len(rows) :]
        self.record.begin_paths(at)
        if fresh is not None:
            self.group = fresh if self.group is None else self.group.join(fresh)

    def _judge(self, rows: Tensor) -> tuple[Evaluation, _Group | None]:
        """The first judgement of some examples, and those of them that are to be searched."""
        output, verdict = self.problem.judge_inputs(rows)
        inputs = self.problem.inputs[rows]
        points = encode(self.problem.coordinates, inputs) if self.latents is None else self.latents[rows]
        at = self.problem.evaluate(points, rows, self.searcher.gradient)
        searches = self.record.admit(at, output, verdict)
        if self.stopped:
            self.record.end(rows[searches], Status.TIME_LIMIT)
        if self.stopped or not searches.any():
            return at, None
        fresh = at if searches.all() else at.take(searches)
        return at, _Group(fresh, self.searcher.start(self.problem, fresh))
