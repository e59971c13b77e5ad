r"""Shells: random samples around the start, from inside outwards; the nearest valid one (Zhao et al., 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_dcf.search.noise import noise
from captum_dcf.search.problem import Evaluation, Problem
from captum_dcf.search.record import RUNNING
from captum_dcf.search.result import Status
from captum_dcf.search.rows import row_norm
from captum_dcf.search.searcher import Move, Searcher, State

__all__ = ["Shells"]

# Most samples of one example that are decoded together. What is drawn depends on it, so it is no setting.
BLOCK = 32


@dataclass(frozen=True, eq=False)
class Shells(Searcher):
    r"""Samples in shells around the start; see :class:`~captum_dcf.attr.NaturalCounterfactual` for the two strategies.

    A step is a block of at most 32 samples of each example's present shell, of which the innermost valid one, else the
    one of highest score, is its candidate. A shell is left when a candidate reached the goal, or all its samples were
    tried. Every example draws the same numbers.

    Args:
        width: Width of the thinnest shell, in shares of the length that points typically have.
        outermost: The greatest radius, likewise.
        samples: Samples of one shell.
        shells: Most shells of one example.
        hybrid: The hybrid shrinking search; otherwise shells outwards until one holds a valid sample.
        patience: Empty shells in a row after which the hybrid search ends.
        seed: What the samples are drawn with.
    """

    width: float
    outermost: float
    samples: int
    shells: int
    hybrid: bool = True
    patience: int = 5
    seed: int = 0
    gradient = False
    stops_at_goal = False

    @property
    def blocks(self) -> int:
        r"""Blocks that the samples of one shell are tried in."""
        return -(-self.samples // BLOCK)

    def start(self, problem: Problem, at: Evaluation) -> State:
        zero, none = torch.zeros_like(at.points[:, 0]), torch.zeros_like(at.rows)
        length = problem.coordinates.typical_length(at.points)
        width, outermost = zero + self.width * length, zero + self.outermost * length
        return {
            "start": at.points,
            "width": width,
            "outermost": outermost,
            "low": zero,
            "high": outermost if self.hybrid else width,
            "shell": none,  # number of the present one
            "block": none - 1,  # number of its last block of samples; -1 before the first
            "radius": zero,  # of the last candidate
            "nearest": zero + torch.inf,  # radius of the best so far
            "inward": none.bool(),  # whether the hybrid search has begun to go inwards
            "empty": none,  # shells in a row that held nothing, going inwards
        }

    def step(self, problem: Problem, at: Evaluation, state: State) -> Move:
        first = state["block"] < 0
        # What became of the candidate the loop's judgement says, not that among the samples: they cannot disagree.
        radii = torch.where(at.reached & ~first, state["radius"], torch.inf)
        block = state["block"] + 1
        over = ~first & (at.reached | (block >= self.blocks))
        following, goes_on = self._hybrid(state, radii) if self.hybrid else self._outwards(state, radii)
        state = {name: _where(over, following.get(name, value), value) for name, value in state.items()}
        state = {**state, "shell": state["shell"] + over.long(), "block": torch.where(over, 0, block)}
        goes_on = (goes_on | ~over) & (state["shell"] < self.shells)
        points, radius = at.points, state["radius"]
        if goes_on.any():
            sampled = self._sample(problem, at.rows[goes_on], {name: value[goes_on] for name, value in state.items()})
            points, radius = points.clone(), radius.clone()
            points[goes_on], radius[goes_on] = sampled
        ended = torch.where(goes_on, RUNNING, int(Status.STEP_LIMIT))
        return Move(points, {**state, "radius": radius}, ended)

    def distance(self, problem: Problem, at: Evaluation, state: State) -> Tensor:
        return state["radius"]

    def _sample(self, problem: Problem, rows: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """Of the next block of each example the first valid sample from inside, else that of highest score."""
        z, n, size = state["start"], len(rows), -(-self.samples // self.blocks)
        seeds = self.seed + state["shell"] * (self.blocks + 1)
        shares = noise(seeds, lambda source: torch.rand(self.samples, generator=source).sort().values, z)
        place = (state["block"] * size)[:, None] + torch.arange(size, device=z.device)
        radii = state["low"][:, None] + shares.gather(1, place.clamp_max(self.samples - 1)) * _width(state)
        free = problem.coordinates.free
        directions = noise(seeds + 1 + state["block"], lambda source: _directions(z, size, free, source), z)
        candidates = (z[:, None] + radii[..., None] * directions).flatten(0, 1)
        at = problem.evaluate(candidates, rows.repeat_interleave(size))
        # The last block may have places for more samples than there are.
        counts = place < self.samples
        reached = at.reached.view(n, size) & counts
        scores = torch.where(at.finite.view(n, size) & counts, at.score.view(n, size), -torch.inf)
        chosen = torch.where(reached.any(1), reached.int().argmax(1), scores.argmax(1))
        each = torch.arange(n, device=z.device)
        return candidates.view(n, size, -1)[each, chosen], radii[each, chosen]

    def _outwards(self, state: State, radii: Tensor) -> tuple[State, Tensor]:
        nearest = torch.minimum(state["nearest"], radii)
        following = {"low": state["high"], "high": state["high"] + state["width"], "nearest": nearest}
        return following, nearest.isinf() & (state["high"] < state["outermost"])

    def _hybrid(self, state: State, radii: Tensor) -> tuple[State, Tensor]:
        low, high = state["low"], state["high"]
        valid = radii.isfinite()
        nearest = torch.minimum(state["nearest"], radii)
        turns = ~state["inward"] & ~valid & (high - low < state["width"])
        inward = state["inward"] | turns
        empty = torch.where(valid, 0, state["empty"] + state["inward"].long())
        # Going inwards: from the best if there is a new one or if this begins, else from the shell that held nothing.
        outer = torch.where(valid | turns, nearest, torch.where(inward, low, high))
        middle = torch.where(valid, nearest / 2, low + (high - low) / 2)
        inner = torch.where(inward, (outer - state["width"]).clamp_min(0), middle)
        following = {"low": inner, "high": outer, "nearest": nearest, "inward": inward, "empty": empty}
        # Those that turned without ever having found something have looked everywhere.
        return following, ~(inward & nearest.isinf()) & (empty < self.patience) & (outer > 0)


def _width(state: State) -> Tensor:
    return (state["high"] - state["low"])[:, None]


def _where(who: Tensor, values: Tensor, others: Tensor) -> Tensor:
    return torch.where(who if values.ndim == 1 else who[:, None], values, others)


def _directions(z: Tensor, count: int, free: slice | Tensor, source: torch.Generator) -> Tensor:
    """Directions that are uniform on the unit sphere of the free coordinates, (count, D), on the CPU."""
    directions = torch.zeros(count, z.shape[1])
    free = free.cpu() if isinstance(free, Tensor) else free
    normal = torch.randn(directions[:, free].shape, generator=source)
    directions[:, free] = normal / row_norm(normal)
    return directions
