r"""Every shipped generator and goal keeps what ``captum_dcf.testing`` checks, and what does not keep it is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import GENERATORS
from torch import Tensor, nn
from toys import Rotated, images

from captum_dcf import AtLeast, AtMost, Goal, LeaveClass, Near, ReachClass, Verdict, zoo
from captum_dcf.data import mnist_sample
from captum_dcf.testing import BrokenPromise, check_generator, check_goal


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_of_the_tests(name: str):
    generator = GENERATORS[name]()
    generator = generator.double().eval() if isinstance(generator, nn.Module) else generator
    assert len(check_generator(generator, images(3).double())) == 11


@pytest.mark.parametrize("name", ["mnist-glow", "mnist-ae", "mnist-ae-4"])
def test_shipped_generators(name: str):
    check_generator(zoo.load(name), mnist_sample()[0][:3], tolerance=1e-3)


@pytest.mark.parametrize(
    "goal",
    [
        ReachClass(1),
        ReachClass(torch.tensor([0, 1, 2]), 0.4),
        LeaveClass(2, 0.8),
        AtLeast(0.5),
        AtMost(torch.tensor([0.1, 0.2, 0.3])),
        Near(0.5, 0.01),
    ],
)
def test_goals(goal: Goal):
    output = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.1, 3.0], [-1.0, 4.0, 0.0]])
    assert len(check_goal(goal, output if goal.of_classes else output[:, 0])) == 4


class Noisy(Rotated):
    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z) + 1e-3 * torch.rand(len(z), 1, 4, 4)


class Writing(Rotated):
    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x.mul_(2).mul_(0.5).add_(0.1).sub_(0.1).mul_(0.99))


class Mixing(Rotated):
    exact = False

    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z - z.mean(0))


class Inexact(Rotated):
    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z).round(decimals=1) * 1.0


class Detached(Rotated):
    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z.detach()).detach()


@pytest.mark.parametrize(
    ("generator", "word"),
    [
        (Noisy, "equal|exact"),
        (Writing, "write|exact"),
        (Mixing, "other"),
        (Inexact, "off by"),
        (Detached, "differentiable"),
        (lambda: nn.Linear(2, 2), "lacks"),
    ],
)
def test_a_generator_that_breaks_a_promise_is_told(generator: Any, word: str):
    with pytest.raises(BrokenPromise, match=word):
        check_generator(generator(), images(3))


class Away(Goal):
    def judge(self, output: Tensor, rows: Tensor, softening: float = 0.0) -> Verdict:
        return Verdict(output, output.detach(), output.detach() > 1)


class Batchwise(Goal):
    def judge(self, output: Tensor, rows: Tensor, softening: float = 0.0) -> Verdict:
        centred = output - output.mean()
        return Verdict(-centred, centred.detach(), centred.detach() > 1)


@pytest.mark.parametrize(("goal", "word"), [(Away(), "lower the score"), (Batchwise(), "each example")])
def test_a_goal_that_breaks_a_promise_is_told(goal: Goal, word: str):
    with pytest.raises(BrokenPromise, match=word):
        check_goal(goal, torch.tensor([0.1, 0.5, -0.3]))
