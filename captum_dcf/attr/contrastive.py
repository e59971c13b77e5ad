r"""ContrastiveCounterfactual: the smallest sparse change of pixels, by FISTA (Dhurandhar et al., 2018)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_dcf.attr._checks import check_modules
from captum_dcf.attr._fista import elastic_net, fista
from captum_dcf.attr._outcome import (
    begin_in_pixels,
    judge,
    keep_better,
    refuse,
    searching_rows,
)
from captum_dcf.attr.counterfactual import CounterfactualAttribution, Query
from captum_dcf.attr.kept import frozen_parameters
from captum_dcf.generators.base import Generator
from captum_dcf.search.goal import Goal, LeaveClass, OutputKind, ReachClass
from captum_dcf.search.problem import gradient_of
from captum_dcf.search.result import Counterfactual, Status
from captum_dcf.search.rows import finite_rows

__all__ = ["ContrastiveCounterfactual", "class_probabilities"]

# K, the published length of one run.
ITERATIONS = 1000

# A further term of the loss: images and their places among the examples that are searched, to (n,).
Term = Callable[[Tensor, Tensor], Tensor]


class ContrastiveCounterfactual(CounterfactualAttribution):
    r"""Counterfactuals x' = x + δ by minimising c·L + β‖δ‖₁ + ‖δ‖₂² + γ‖AE(x') - x'‖₂² over pixels.

    L = max(0, max_{k≠t} p_k - p_t + κ) with the probabilities p of f(x'), for ``LeaveClass`` its counterpart; where the
    goal asks for more confidence than being the most likely class takes, L goes on below zero until it is reached.
    Solved by FISTA, whose soft threshold leaves exact zeros in δ. Runs of equal length, together ``max_steps``, look
    for c: ten times c until one run finds something, then bisection. Of all images that reached the goal the one with
    the least β‖δ‖₁ + ‖δ‖₂² is returned. The published length of a run is 1000, hence ``default_max_steps``.

    The paper's pertinent negatives may only add to an image; here δ may also take away, or 9 could never become 4.

    Dhurandhar, Chen, Luss, Tu, Ting, Shanmugam and Das, "Explanations based on the Missing: Towards Contrastive
    Explanations with Pertinent Negatives", NeurIPS 2018, https://arxiv.org/abs/1802.07623

    Args:
        forward_func: The model: images (N, ...), and additional arguments, to outputs.
        generator: Says the range of pixels, and gives the reconstructions and latents of the result.
        autoencoder: AE, images to images, in evaluation mode; the generator by default. The term is left out where the
            generator is exact: there it is zero.
        kappa: κ, the lead in probability that is asked for.
        beta: β, the width of the soft threshold, in pixel values.
        gamma: γ, the weight of the autoencoder's term.
        c: The first c.
        outer_steps: Runs, each with its own c.
        lr: Learning rate of the first iteration of a run; falls with √(1 - k/K).
        output: What the model gives: ``"logits"``, ``"probabilities"`` or ``"binary_logit"``.
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        generator: Generator,
        autoencoder: nn.Module | None = None,
        kappa: float = 0.0,
        beta: float = 0.1,
        gamma: float = 100.0,
        c: float = 10.0,
        outer_steps: int = 9,
        lr: float = 0.01,
        output: OutputKind = "logits",
    ) -> None:
        super().__init__(forward_func, generator, output)
        if autoencoder is not None and not isinstance(autoencoder, nn.Module):
            raise TypeError(f"autoencoder must be a torch.nn.Module, received {type(autoencoder).__name__}")
        for name, value in (("kappa", kappa), ("beta", beta), ("gamma", gamma)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be 0 or more and finite, received {value}")
        for name, value in (("c", c), ("lr", lr)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be positive and finite, received {value}")
        if outer_steps < 1:
            raise ValueError(f"outer_steps must be at least 1, received {outer_steps}")
        self.autoencoder = autoencoder
        self.kappa = kappa
        self.beta = beta
        self.gamma = gamma
        self.c = c
        self.outer_steps = outer_steps
        self.lr = lr
        self.default_max_steps = ITERATIONS * outer_steps

    def search(self, query: Query) -> Counterfactual:
        r"""All runs, for all examples at once."""
        reason = "the nearest image of all runs is returned"
        refuse(self, query, reason, reason)
        self.check_goal(query.goal)
        modules = [] if self.autoencoder is None else [self.autoencoder]
        check_modules(modules)
        result = begin_in_pixels(self, query)
        rows = searching_rows(result)
        if len(rows):
            constant = self.autoencoder.constant() if isinstance(self.autoencoder, Generator) else nullcontext()
            with frozen_parameters(modules), constant:
                terms = [self._autoencoder_term(), self.further_term(query, result, rows)]
                self._search_weight(query, result, rows, [term for term in terms if term is not None])
        return replace(result, end_latents=self.encode(result.counterfactuals))

    def check_goal(self, goal: Goal) -> None:
        r"""Refuses goals that this loss cannot speak of.

        Raises:
            ValueError: The goal is not one of classes.
        """
        if not isinstance(goal, (ReachClass, LeaveClass)):
            name = type(self).__name__
            raise ValueError(f"{name} accepts target=, ReachClass and LeaveClass, received {type(goal).__name__}")

    def further_term(self, query: Query, result: Counterfactual, rows: Tensor) -> Term | None:
        r"""What else a method adds to the loss of the examples at ``rows``; nothing here."""
        return None

    def _autoencoder_term(self) -> Term | None:
        autoencoder = self.generator if self.autoencoder is None else self.autoencoder
        if self.gamma == 0 or (self.autoencoder is None and self.generator.exact):
            return None
        return lambda images, places: self.gamma * (autoencoder(images) - images).flatten(1).square().sum(1)

    def _search_weight(self, query: Query, result: Counterfactual, rows: Tensor, terms: list[Term]) -> None:
        """The outer search on c: fills in the result of the examples at ``rows``."""
        start = query.inputs[rows]
        _check_differentiable(query, start, rows)
        best = _Best(query, result, rows, self.beta)
        c = torch.full_like(start[:, 0].flatten(1)[:, 0], self.c)
        lower, upper = torch.zeros_like(c), torch.full_like(c, torch.inf)
        runs = min(self.outer_steps, query.max_steps)
        for _ in range(runs):

            def loss(images: Tensor, places: Tensor, c: Tensor = c) -> Tensor:
                output = query.predict(images, rows[places])
                goal = cast(ReachClass | LeaveClass, query.goal.take(rows[places]))
                hinge = _hinge(goal, output, self.kappa)
                change = (images - start[places]).flatten(1)
                return c[places] * hinge + change.square().sum(1) + sum(term(images, places) for term in terms)

            best.found.zero_()
            steps, endings = fista(
                start, loss, best.observe, self.beta, self.lr, query.max_steps // runs, self.generator.data_range
            )
            result.steps[rows] += steps
            result.status[rows] = torch.where(best.distance.isfinite(), int(Status.FOUND), endings)
            lower, upper = torch.where(best.found, lower, c), torch.where(best.found, c, upper)
            c = torch.where(upper.isfinite(), (lower + upper) / 2, 10 * c)
            query.on_round(len(rows))


class _Best:
    """Keeps, of all images seen, the nearest valid one of each example; before there is one, that of highest score."""

    def __init__(self, query: Query, result: Counterfactual, rows: Tensor, beta: float) -> None:
        self.query, self.result, self.rows, self.beta = query, result, rows, beta
        self.distance = torch.full_like(result.end_scores[rows], torch.inf)
        self.found = torch.zeros_like(rows, dtype=torch.bool)

    @torch.no_grad()
    def observe(self, images: Tensor, places: Tensor) -> None:
        rows = self.rows[places]
        scores, reached, finite = judge(self.query, images, rows, finite_rows(images))
        distance = elastic_net(images - self.query.inputs[rows], self.beta)
        nearest = self.distance[places]
        better = reached & (distance < nearest)
        hopeful = nearest.isinf() & ~reached & finite & (scores > self.result.end_scores[rows])
        keep_better(self.result, rows, better | hopeful, images, scores)
        self.distance[places] = torch.where(better, distance.to(nearest), nearest)
        self.found[places] |= reached


def _check_differentiable(query: Query, images: Tensor, rows: Tensor) -> None:
    # The other terms depend on the images whatever the model does, so a run would not notice.
    images = images.detach().requires_grad_()
    gradient_of(query.predict(images, rows).sum(), images)


def _hinge(goal: ReachClass | LeaveClass, output: Tensor, kappa: float) -> Tensor:
    """L: the lead of the unwanted classes, and zero once they are behind by κ and the goal is reached."""
    probabilities = class_probabilities(output, goal.kind)
    labels = torch.as_tensor(goal.label, dtype=torch.int64, device=output.device).expand(len(output))
    is_label = F.one_hot(labels, probabilities.shape[1]).bool()
    named = probabilities.gather(1, labels[:, None]).squeeze(1)
    other = probabilities.masked_fill(is_label, -torch.inf).amax(1)
    lead = kappa + (other - named if isinstance(goal, ReachClass) else named - other)
    return torch.where((lead > 0) | ~goal.reached(output), lead, torch.zeros_like(lead))


def class_probabilities(output: Tensor, kind: OutputKind) -> Tensor:
    r"""The probabilities of all classes, (N, classes), from what the model gives."""
    if kind == "logits":
        return output.softmax(1)
    if kind == "probabilities":
        return output
    one = output.flatten().sigmoid()
    return torch.stack((1 - one, one), dim=1)
