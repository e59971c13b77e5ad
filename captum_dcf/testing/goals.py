r"""What a goal promises."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_dcf.search import Goal
from captum_dcf.search.judging import verdict
from captum_dcf.testing.promise import check_images, promise, run

__all__ = ["check_goal"]


def check_goal(goal: Goal, output: Tensor) -> list[str]:
    r"""Checks a goal of your own on outputs of a model, two or more of them, (N, ...), some of which do not reach it.

    Raises:
        TypeError: Something else than a goal, or than floating point outputs.
        BrokenPromise: A promise does not hold.
    """
    if not isinstance(goal, Goal):
        raise TypeError(f"goal must be a captum_dcf Goal, received {type(goal).__name__}")
    check_images("output", output)
    return run([_judges_rows, _judges_each_alone, _loss_leads_to_the_goal, _agrees_with_itself], goal, output)


def _judges_rows(goal: Goal, output: Tensor) -> None:
    before, rows = output.clone(), torch.arange(len(output), device=output.device)
    goal.check(output)
    given, softened = verdict(goal, output, rows), verdict(goal, output, rows, softening=1.5)
    promise(torch.equal(output, before), "judge must not write into the output")
    promise(torch.equal(given.reached, softened.reached), "softening must not change what is reached")
    promise(torch.equal(given.score, softened.score), "softening must not change scores")


def _judges_each_alone(goal: Goal, output: Tensor) -> None:
    together = goal.judge(output, torch.arange(len(output), device=output.device))
    for row in range(len(output)):
        # The same example may come several times, and without the others.
        rows = torch.tensor([row, row], device=output.device)
        for name, one, other in zip(together._fields, goal.judge(output[rows], rows), together):
            same = torch.allclose(one.float(), other[rows].float(), atol=1e-5)
            promise(same, f"{name} must be that of each example, whatever the others of the batch")


def _loss_leads_to_the_goal(goal: Goal, output: Tensor) -> None:
    rows = torch.arange(len(output), device=output.device)
    with torch.enable_grad():
        leaf = output.detach().clone().requires_grad_()
        given = goal.judge(leaf, rows)
        promise(given.loss.requires_grad, "the loss must be differentiable in the output")
        [slope] = torch.autograd.grad(given.loss.sum(), leaf)
    size = slope.abs().reshape(len(output), -1).amax(1).clamp_min(1e-12).view(-1, *[1] * (output.ndim - 1))
    score = goal.judge(output - 1e-3 * slope / size, rows).score
    worse = ~given.reached & (score < given.score.detach() - 1e-6)
    promise(not worse.any(), "a small step down the loss must not lower the score")


def _agrees_with_itself(goal: Goal, output: Tensor) -> None:
    promise(
        goal.agrees(output, output, torch.arange(len(output), device=output.device)).all(),
        "an output must agree with itself",
    )
