r"""NaturalCounterfactual: samples around the latent of the input, in shells (Zhao et al., 2018)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from captum_dcf.attr._outcome import begin_in_latents, judge, keep_better, latent_problem, refuse, searching_rows
from captum_dcf.attr.counterfactual import CounterfactualAttribution, Query
from captum_dcf.generators.base import Generator
from captum_dcf.search.goal import OutputKind
from captum_dcf.search.problem import Problem
from captum_dcf.search.result import Counterfactual, Status
from captum_dcf.search.step import per_example_norm

__all__ = ["NaturalCounterfactual"]

STRATEGIES = ("hybrid", "iterative")
# The published radii are those of a latent space of 64 dimensions, in which a standard normal has this typical length.
PUBLISHED_LENGTH = 8.0
# Samples of one example that are decoded together. What is drawn depends on it, so it is no setting.
BLOCK = 32


class NaturalCounterfactual(CounterfactualAttribution):
    r"""Counterfactuals by sampling: the valid sample nearest to z = g⁻¹(x) among g(z + r d).

    Directions d are uniform on the unit sphere, radii r uniform in a shell (l, h), ``samples`` of them in a round.

    - ``"iterative"``: shells of width Δr from z outwards, until one holds a valid sample.
    - ``"hybrid"`` (hybrid shrinking search): begins with the whole ball. While nothing is valid, the outer half of the
      shell; once something is, at distance r, the shell (r/2, r). When the shell is thinner than Δr, shells of width Δr
      inwards from the best, until ``patience`` of them in a row held nothing.

    No gradients are taken. A round is one step of the result, its samples are decoded from the innermost outwards and
    only up to the first valid one. Each example draws the same directions as any other, from a generator of its own, so
    results repeat and do not depend on the batch. ``internal_batch_size`` times 32 samples are decoded at a time.

    Zhao, Dua and Singh, "Generating Natural Adversarial Examples", ICLR 2018, https://arxiv.org/abs/1710.11342

    Args:
        forward_func: The model: images (N, ...), and additional arguments, to outputs.
        generator: Coordinates of the data.
        strategy: ``"hybrid"`` or ``"iterative"``.
        samples: Samples of one round.
        shell_width: Δr, for a latent space of 64 standard normal dimensions; scaled with the length that latents of
            this generator typically have (:meth:`Generator.typical_length`), √D/√64 for D standard normal dimensions.
        outermost: The greatest radius that is tried, scaled likewise.
        patience: B, the empty shells in a row after which the hybrid search ends.
        max_samples: Most samples of one example; no further round is begun that would need more.
        seed: What the samples are drawn with.
        output: What the model gives: ``"logits"``, ``"probabilities"`` or ``"binary_logit"``.
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        generator: Generator,
        strategy: Literal["hybrid", "iterative"] = "hybrid",
        samples: int = 5000,
        shell_width: float = 0.01,
        outermost: float = 10.0,
        patience: int = 5,
        max_samples: int = 100_000,
        seed: int = 0,
        output: OutputKind = "logits",
    ) -> None:
        super().__init__(forward_func, generator, output)
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy must be one of {STRATEGIES}, received {strategy!r}")
        if not 0 < shell_width < outermost < float("inf"):
            raise ValueError(f"0 < shell_width < outermost must hold, received {shell_width} and {outermost}")
        if not 1 <= samples <= max_samples:
            raise ValueError(f"1 <= samples <= max_samples must hold, received {samples} and {max_samples}")
        if patience < 1:
            raise ValueError(f"patience must be at least 1, received {patience}")
        self.strategy = strategy
        self.samples = samples
        self.shell_width = shell_width
        self.outermost = outermost
        self.patience = patience
        self.max_samples = max_samples
        self.seed = seed

    @torch.no_grad()
    def search(self, query: Query) -> Counterfactual:
        r"""Rounds of samples for all examples that are still looking for a nearer one."""
        refuse(self, query, "the rounds already narrow the distance down", "samples are no path")
        latents = self.encode(query.inputs)
        problem = latent_problem(self, query)
        result = begin_in_latents(query, latents, problem)
        rows = searching_rows(result)
        scale = self.generator.typical_length(latents) / PUBLISHED_LENGTH
        width, outermost = self.shell_width * scale, self.outermost * scale
        shells = _first_shells(rows, latents, outermost if self.strategy == "hybrid" else width)
        for number in range(min(query.max_steps, self.max_samples // self.samples)):
            if not len(rows):
                break
            radii = self._sample(result, query, problem, shells, number)
            result.steps[rows] += 1
            query.on_round(len(rows))
            if self.strategy == "hybrid":
                shells = _next_hybrid(shells, radii, width, self.patience)
            else:
                shells = _next_iterative(shells, radii, width, outermost)
            rows = shells.rows
        return result

    def _sample(self, result: Counterfactual, query: Query, problem: Problem, shells: _Shells, number: int) -> Tensor:
        """Looks through one round; the radius of the nearest valid sample of each example, infinite where none is."""
        rows, low, high = shells.rows, shells.low, shells.high
        radii = torch.full_like(low, torch.inf)
        blocks = -(-self.samples // BLOCK)
        seed = self.seed + number * (blocks + 1)
        # In rising order, so that the first valid sample is the nearest and the rest need not be decoded.
        shares = torch.rand(self.samples, generator=_source(low, seed), device=low.device, dtype=low.dtype)
        for block, share in enumerate(shares.sort().values.split(BLOCK)):
            looking = radii.isinf().nonzero().squeeze(1)
            if not len(looking):
                break
            offsets = _directions(result.start_latents, len(share), problem.free, _source(low, seed + 1 + block))
            tried = low[looking, None] + share * (high - low)[looking, None]
            nearest = _try(result, query, problem, rows[looking], tried, offsets)
            radii[looking] = nearest
        return radii


@dataclass(frozen=True)
class _Shells:
    """Where the examples look next, one row each."""

    rows: Tensor  # where each stands in the whole batch
    low: Tensor
    high: Tensor
    nearest: Tensor  # radius of the best so far, infinite where there is none
    inward: Tensor  # whether the hybrid search has begun to go inwards
    empty: Tensor  # shells in a row that held nothing, going inwards

    def take(self, keep: Tensor) -> _Shells:
        return _Shells(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})


def _first_shells(rows: Tensor, latents: Tensor, high: Tensor) -> _Shells:
    zeros = latents.new_zeros(len(rows))
    none = torch.zeros_like(rows)
    return _Shells(rows, zeros, zeros + high, zeros + torch.inf, none.bool(), none)


def _next_iterative(shells: _Shells, radii: Tensor, width: Tensor, outermost: Tensor) -> _Shells:
    nearest = torch.minimum(shells.nearest, radii)
    outer = _Shells(shells.rows, shells.high, shells.high + width, nearest, shells.inward, shells.empty)
    return outer.take(nearest.isinf() & (outer.low < outermost))


def _next_hybrid(shells: _Shells, radii: Tensor, width: Tensor, patience: int) -> _Shells:
    valid = radii.isfinite()
    nearest = torch.minimum(shells.nearest, radii)
    turns = ~shells.inward & ~valid & (shells.high - shells.low < width)
    inward = shells.inward | turns
    empty = torch.where(valid, 0, shells.empty + shells.inward.long())
    # Going inwards: from the best if there is a new one or if this begins, else on from the shell that held nothing.
    unfound = torch.where(inward, shells.low, shells.high)
    high = torch.where(valid | turns, nearest, unfound)
    middle = torch.where(valid, nearest / 2, shells.low + (shells.high - shells.low) / 2)
    low = torch.where(inward, (high - width).clamp_min(0), middle)
    following = _Shells(shells.rows, low, high, nearest, inward, empty)
    # Those that turned without ever having found something have looked everywhere.
    return following.take(~(inward & nearest.isinf()) & (empty < patience) & (high > 0))


def _source(like: Tensor, seed: int) -> torch.Generator:
    return torch.Generator(like.device).manual_seed(seed)


def _directions(latents: Tensor, count: int, free: slice | Tensor, source: torch.Generator) -> Tensor:
    """Uniform on the unit sphere of the free coordinates, (count, D)."""
    directions = torch.zeros(count, latents.shape[1], device=latents.device, dtype=latents.dtype)
    moving = directions[:, free]
    normal = torch.randn(moving.shape, generator=source, device=latents.device, dtype=latents.dtype)
    directions[:, free] = normal / per_example_norm(normal)
    return directions


def _try(
    result: Counterfactual, query: Query, problem: Problem, rows: Tensor, radii: Tensor, directions: Tensor
) -> Tensor:
    """Judges a block of samples (n, block), rising in radius, keeps the first valid or the best; (n,) valid radii."""
    count, block = radii.shape
    latents = (result.start_latents[rows, None] + radii[..., None] * directions).flatten(0, 1)
    images, finite = problem.image(latents)
    scores, reached, finite = judge(query, images, rows.repeat_interleave(block), finite)
    reached = reached.view(count, block)
    any_reached = reached.any(1)
    best = torch.where(finite, scores, -torch.inf).view(count, block).argmax(1)
    chosen = torch.where(any_reached, reached.int().argmax(1), best)
    flat = torch.arange(count, device=rows.device) * block + chosen
    unfound = result.status[rows] != Status.FOUND
    better = any_reached | (unfound & finite[flat] & (scores[flat] > result.end_scores[rows]))
    keep_better(result, rows, better, images[flat], scores[flat], latents[flat])
    result.status[rows[any_reached]] = Status.FOUND
    return torch.where(any_reached, radii.gather(1, chosen[:, None]).squeeze(1), torch.inf)
