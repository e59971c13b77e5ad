r"""What is searched, and the one place where a candidate is judged."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from captum_dcf.search.coordinates import Coordinates, decode
from captum_dcf.search.goal import Goal, Verdict
from captum_dcf.search.judging import verdict
from captum_dcf.search.model import Model
from captum_dcf.search.rows import row_norm
from captum_dcf.search.support import Measured
from captum_dcf.search.term import Term

__all__ = ["Evaluation", "Problem"]

NO_GRADIENT = (
    "the output of forward_func does not depend differentiably on its input: "
    "is there a no_grad, a detach, an argmax or a detour through numpy in it?"
)


@dataclass(frozen=True, eq=False)
class Evaluation:
    r"""What one round finds out about its candidates, one row each; nothing in it carries a gradient.

    Attributes:
        rows: The examples of the call they belong to, int64 (n,).
        points: (n, D).
        images: What the model was shown, (n, ...): finite wherever ``finite`` is true.
        output: What the model gave for them.
        score: The goal's score, (n,).
        reached: Whether the goal is reached, all terms allow the image and everything is finite, bool (n,).
        finite: Whether image, loss and score are, bool (n,).
        gradient: Of the loss in the points, (n, D), zero outside of the free coordinates; None where not asked for.
        loss: What the gradient is of, (n,); infinite below the support floor, where it is of the plausibility.
        overshoot: How far the decode reached beyond the range before it was clamped, as a share of the range, (n,).
    """

    rows: Tensor
    points: Tensor
    images: Tensor
    output: Tensor
    score: Tensor
    reached: Tensor
    finite: Tensor
    gradient: Tensor | None
    loss: Tensor
    overshoot: Tensor

    def take(self, keep: Tensor) -> Evaluation:
        r"""The candidates where ``keep`` is true, or at these places."""
        return Evaluation(*[None if value is None else value[keep] for value in self._values()])

    def join(self, other: Evaluation) -> Evaluation:
        r"""These candidates and then the others."""
        pairs = zip(self._values(), other._values())
        return Evaluation(*[None if mine is None else torch.cat((mine, its)) for mine, its in pairs])

    def _values(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]


@dataclass(frozen=True, eq=False)
class Problem:
    r"""Model, goal and coordinates of one call, and what a method adds to them.

    Attributes:
        inputs: x, (N, ...).
        model: What is explained.
        goal: What its output has to become.
        coordinates: What the search moves in.
        terms: Further losses and limits, see :data:`~captum_dcf.search.term.Term`.
        softening: How much the loss of a goal of classes is softened, see :class:`ReachClass`.
        measured: What the plausibility of an image is, see :class:`~captum_dcf.search.support.Support`; None for
            coordinates that know of none.
        floor: The least plausibility of an image that reaches the goal; -inf for none. Where a candidate is below it,
            the loss is minus its plausibility instead, so that a search climbs back before it goes on (the switching
            subgradient method of Polyak, 1967).
    """

    inputs: Tensor
    model: Model
    goal: Goal
    coordinates: Coordinates
    terms: tuple[Term, ...] = ()
    softening: float = 0.0
    measured: Measured | None = None
    floor: float = -math.inf

    def evaluate(
        self, points: Tensor, rows: Tensor, gradient: bool = False, weight: Tensor | None = None
    ) -> Evaluation:
        r"""Judges candidates. Every image that a search returns came through here.

        Args:
            points: (n, D).
            rows: The examples of the call they belong to, int64 (n,).
            gradient: Whether to take the gradient of weight · loss of the goal + terms.
            weight: Of the goal's loss, (n,); one by default.

        Raises:
            TypeError: Decoder, model or goal give something else than they have to.
            ValueError: They cannot take what they are given, or there is no gradient to be had.
        """
        with torch.set_grad_enabled(gradient):
            z = points.detach().requires_grad_(gradient)
            images, finite, overshoot, log_prob = decode(self.coordinates, z, self.inputs)
            output = self.model(images, rows)
            loss, score, reached = verdict(self.goal, output, rows, self.softening)
            if gradient and not loss.requires_grad:
                # Terms depend on the images whatever the model does, so this is asked before they are added.
                raise ValueError(f"{NO_GRADIENT} Or is it the loss of {type(self.goal).__name__} that has none?")
            finite = finite & loss.detach().isfinite() & score.isfinite()
            loss = loss if weight is None else weight * loss
            for term in self.terms:
                further, allowed = term(images, z, rows)
                loss = loss + further
                reached = reached if allowed is None else reached & allowed
            reached = reached & finite
            asked, loss = loss, loss.detach()
            if self.floor > -math.inf:
                climb, below = self._below_the_floor(z, images.detach(), log_prob, reached)
                asked, loss = torch.where(below, climb, asked), torch.where(below, math.inf, loss)
                reached = reached & ~below
            slope = self._slope(asked, finite, z) if gradient else None
        seen = output.detach(), score.detach()
        return Evaluation(rows, z.detach(), images.detach(), *seen, reached, finite, slope, loss, overshoot)

    def judge_inputs(self, rows: Tensor) -> tuple[Tensor, Verdict]:
        r"""Output and verdict of some of the inputs themselves.

        Raises:
            TypeError: The model gives something else than it has to.
            ValueError: The goal cannot be asked about such outputs.
        """
        with torch.no_grad():
            # A copy: a model may give the same memory at each call, and this output is compared with that of the next.
            output = self.model(self.inputs[rows], rows).clone()
            self.model.check(output)
            self.goal.check(output)
            return output, verdict(self.goal, output, rows)

    def _below_the_floor(
        self, points: Tensor, images: Tensor, log_prob: Tensor | None, reached: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Minus the plausibility of candidates, as far as it is known without asking, and who is below the floor."""
        plausibility = -row_norm(points).squeeze(1) if self.measured == "latent_length" else log_prob
        if plausibility is None:
            plausibility = points.new_full((len(points),), math.inf)
        known = plausibility.detach().clone()
        if self.measured == "log_prob" and reached.any():
            # That of the image itself: it was clamped after it was decoded.
            with torch.no_grad():
                known[reached] = self.coordinates.log_prob(images[reached]).to(known)
        return -plausibility, ~(known >= self.floor)

    def _slope(self, loss: Tensor, finite: Tensor, z: Tensor) -> Tensor:
        """The gradient of the loss in the free coordinates."""
        [slope] = torch.autograd.grad(torch.where(finite, loss, 0).sum(), z, allow_unused=True)
        if slope is None:
            raise ValueError(NO_GRADIENT)
        free = self.coordinates.free
        if not isinstance(free, Tensor) and free == slice(None):
            return slope
        kept = torch.zeros_like(slope)
        kept[:, free] = slope[:, free]
        return kept
