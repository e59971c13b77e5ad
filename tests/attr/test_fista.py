r"""FISTA: exact zeros, a known minimum, the schedule as published."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_dcf import Status
from captum_dcf.attr._fista import elastic_net, fista, soft_threshold


def ignore(images: Tensor, rows: Tensor) -> None:
    pass


def test_the_soft_threshold_leaves_exact_zeros():
    change = torch.tensor([-0.5, -0.1, -0.05, 0.0, 0.05, 0.1, 0.3])
    torch.testing.assert_close(soft_threshold(change, 0.1), torch.tensor([-0.4, 0, 0, 0, 0, 0, 0.2]))
    assert (soft_threshold(change, 0.1)[1:6] == 0).all()


def test_the_elastic_net():
    change = torch.tensor([[[0.5, -2.0]], [[0.0, 1.0]]])
    torch.testing.assert_close(elastic_net(change, 0.1), torch.tensor([0.25 + 4.25, 1.1]))


def test_iterates_are_those_of_the_definition():
    start, goal = torch.tensor([[0.2, 0.5, 0.9]]), torch.tensor([[3.0, 0.5, -4.0]])
    seen: list[Tensor] = []
    iterations, lr, beta = 7, 0.2, 0.1
    fista(
        start,
        lambda images, rows: (images - goal[rows]).square().sum(1),
        lambda images, rows: seen.append(images.clone()),
        beta,
        lr,
        iterations,
        (0.0, 1.0),
    )
    x, y = start, start
    for k in range(iterations):
        moved = y - lr * (1 - k / iterations) ** 0.5 * 2 * (y - goal) - start
        following = (start + torch.where(moved.abs() > beta, moved - beta * moved.sign(), 0 * moved)).clamp(0, 1)
        x, y = following, (following + k / (k + 3) * (following - x)).clamp(0, 1)
        torch.testing.assert_close(seen[k], x)
    assert seen[-1][0, 1] == start[0, 1]


def test_examples_end_each_for_its_own_reason():
    start = torch.zeros(3, 2)

    def loss(images: Tensor, rows: Tensor) -> Tensor:
        slopes = torch.tensor([5.0, 0.1, 1.0])[rows]
        broken = torch.where(rows == 2, torch.nan, 1.0)
        return (slopes * broken) * images.sum(1)

    steps, endings = fista(start, loss, ignore, 0.1, 0.1, 4, None)
    assert steps.tolist() == [4, 1, 1]
    assert endings.tolist() == [Status.BEST_EFFORT, Status.STALLED, Status.NOT_FINITE]
