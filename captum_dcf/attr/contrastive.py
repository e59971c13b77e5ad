r"""ContrastiveCounterfactual: the smallest sparse change of pixels, by FISTA (Dhurandhar et al., 2018)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_dcf.attr.counterfactual import ModelOptions
from captum_dcf.attr.spaces import PixelMethod
from captum_dcf.search import Coordinates, Goal, LeaveClass, Model, Options, Problem, ReachClass, Searcher, Verdict
from captum_dcf.search.fista import Fista
from captum_dcf.search.numbers import check_int, check_real
from captum_dcf.search.term import ReconstructionDistance, SquaredDistance, Term

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ContrastiveCounterfactual", "Lead"]

# K, the published length of one run.
ITERATIONS = 1000


class ContrastiveCounterfactual(PixelMethod):
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
        autoencoder: AE, images to images, in evaluation mode. Without one, and with an exact generator, for which it
            would be zero, the term is left out.
        kappa: κ, the lead in probability that is asked for.
        beta: β, the width of the soft threshold, in pixel values.
        gamma: γ, the weight of the autoencoder's term.
        c: The first c.
        outer_steps: Runs, each with its own c.
        lr: Learning rate of the first iteration of a run; falls with √(1 - k/K).
        data_range: Least and greatest pixel value, None for no bounds.
        model_options: ``output``, ``select``, ``normalize``: see :class:`CounterfactualAttribution`.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        autoencoder: nn.Module | None = None,
        kappa: float = 0.0,
        beta: float = 0.1,
        gamma: float = 100.0,
        c: float = 10.0,
        outer_steps: int = 9,
        lr: float = 0.01,
        data_range: tuple[float, float] | None = (0.0, 1.0),
        **model_options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(forward_func, data_range, **model_options)
        if autoencoder is not None and not isinstance(autoencoder, nn.Module):
            raise TypeError(f"autoencoder must be a torch.nn.Module, received {type(autoencoder).__name__}")
        self.autoencoder = autoencoder
        self.kappa = check_real("kappa", kappa, at_least=0.0)
        self.beta = check_real("beta", beta, at_least=0.0)
        self.gamma = check_real("gamma", gamma, at_least=0.0)
        self.c = check_real("c", c, above=0.0)
        self.outer_steps = check_int("outer_steps", outer_steps, at_least=1)
        self.lr = check_real("lr", lr, above=0.0)
        self.default_max_steps = ITERATIONS * self.outer_steps

    def modules(self) -> list[nn.Module]:
        return [*super().modules(), *([] if self.autoencoder is None else [self.autoencoder])]

    def check_options(self, options: Options) -> None:
        super().check_options(options)
        if options.refine:
            name = type(self).__name__
            raise ValueError(f"{name} accepts refine=False only: the nearest image of all runs is returned")

    def check_goal(self, goal: Goal) -> Goal:
        if not isinstance(goal, (ReachClass, LeaveClass)):
            name = type(self).__name__
            raise ValueError(f"{name} accepts target=, ReachClass and LeaveClass, received {type(goal).__name__}")
        return Lead(goal, self.kappa)

    def terms(self, inputs: Tensor, model: Model, goal: Goal, coordinates: Coordinates) -> tuple[Term, ...]:
        terms: tuple[Term, ...] = (SquaredDistance(inputs),)
        if self.autoencoder is not None and self.gamma and not getattr(self.autoencoder, "exact", False):
            terms += (ReconstructionDistance(self.autoencoder, self.gamma),)
        return terms

    def searcher(self, problem: Problem, max_steps: int) -> Searcher:
        runs = min(self.outer_steps, max_steps)
        return Fista(beta=self.beta, lr=self.lr, iterations=max_steps // runs, runs=runs, c=self.c)


@dataclass(frozen=True, eq=False)
class Lead(Goal):
    r"""A goal of classes whose loss is L: the lead of the unwanted classes in probability.

    Zero once they are behind by κ and the goal is reached.
    """

    goal: ReachClass | LeaveClass
    kappa: float = 0.0

    of_classes: ClassVar[bool] = True

    def judge(self, output: Tensor, rows: Tensor, softening: float = 0.0) -> Verdict:
        verdict = self.goal.judge(output, rows)
        labels, probabilities = self.goal.labels(rows), output.softmax(1)
        is_label = F.one_hot(labels, probabilities.shape[1]).bool()
        named = probabilities.gather(1, labels[:, None]).squeeze(1)
        other = probabilities.masked_fill(is_label, -torch.inf).amax(1)
        lead = self.kappa + (other - named if isinstance(self.goal, ReachClass) else named - other)
        return verdict._replace(loss=torch.where((lead > 0) | ~verdict.reached, lead, torch.zeros_like(lead)))

    def agrees(self, output: Tensor, other: Tensor, rows: Tensor) -> Tensor:
        return self.goal.agrees(output, other, rows)

    def check(self, output: Tensor) -> None:
        self.goal.check(output)

    def check_length(self, examples: int) -> None:
        self.goal.check_length(examples)
