from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from captum_dcf.search import Adam, StepRule, UnitGradient


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1.0, 1e30, 3e38])
def test_a_unit_step_has_its_length_whatever_the_size_of_the_gradient(size: float):
    direction = torch.randn(5, 100).sign() * torch.linspace(0.3, 1, 100)
    z = torch.zeros(5, 100)
    moved, _ = UnitGradient(0.7).step(z, direction * size, UnitGradient(0.7).start(z))
    torch.testing.assert_close(moved.norm(dim=1), torch.full((5,), 0.7))
    # The smallest of these is stored with few digits, so its direction is only nearly that of the others.
    torch.testing.assert_close(moved, -0.7 * direction / direction.norm(dim=1, keepdim=True), rtol=2e-4, atol=2e-5)


def test_a_unit_step_by_hand():
    z, gradient = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[3.0, -4.0], [0.0, 0.0]])
    moved, _ = UnitGradient(10.0).step(z, gradient, UnitGradient(10.0).start(z))
    torch.testing.assert_close(moved, torch.tensor([[-5.0, 9.0], [0.0, 0.0]]))
    assert z.tolist() == [[1.0, 1.0], [0.0, 0.0]]


def walk(rule: UnitGradient, signs: list[int]) -> list[float]:
    """Where the steps lead along a line, from 0."""
    z, way = torch.zeros(1, 2), []
    state = rule.start(z)
    for sign in signs:
        z, state = rule.step(z, torch.tensor([[-3.0 * sign, 0.0]]), state)
        way.append(z[0, 0].item())
    return way


TO_AND_FRO = [1, -1, 1, -1, 1, -1, 1]


def test_unit_steps_in_circles_lead_back_to_the_start_and_are_shorter_then():
    way = walk(UnitGradient(1.0, patience=7), [*TO_AND_FRO, 1, *TO_AND_FRO, 1, 1])
    assert way == pytest.approx([1, 0, 1, 0, 1, 0, 1, 0, 0.7, 0, 0.7, 0, 0.7, 0, 0.7, 0, 0.49])


def test_unit_steps_in_circles_that_are_at_the_start_become_shorter_at_once():
    assert walk(UnitGradient(1.0, patience=4), [1, -1, 1, -1, 1, 1]) == pytest.approx([1, 0, 1, 0, 0.7, 1.4])


@pytest.mark.parametrize("signs", [[1], [1, 1, -1], [1, 1, 1, -1, -1]])
def test_unit_steps_that_get_on_are_left_alone(signs: list[int]):
    # In a zigzag they get on by a third, or a fifth, of their way.
    steps = (signs * 60)[:60]
    assert walk(UnitGradient(1.0, patience=10), steps) == pytest.approx(np.cumsum(steps))


def test_after_another_attempt_unit_steps_are_measured_from_the_start():
    # Out to 6, in circles there, and back; ten steps of 0.7 lead to 7, far from the start and near the circles.
    signs = [1] * 8 + [-1] * 2 + [1, -1] * 5 + [1] + [1] * 11
    assert walk(UnitGradient(1.0, patience=10), signs)[-3:] == pytest.approx([6.3, 7.0, 7.7])


def test_unit_steps_that_are_caught_begin_again_with_shorter_ones_six_times():
    rule, start, caught = UnitGradient(2.0), torch.zeros(1, 2), torch.ones(1, 2)
    _, state = rule.step(start, caught, rule.start(start))
    lengths = []
    while not torch.equal((begun := rule.again(caught, {**state, "here": caught}))[0], caught):
        state = begun[1]
        lengths.append(state["length"].item())
        assert torch.equal(begun[0], start)
        assert torch.equal(state["here"], start)
        assert state["count"].item() == 0
    assert lengths == pytest.approx([2.0 * 0.7**attempt for attempt in range(1, 7)])


def test_a_rule_that_says_nothing_of_other_attempts_makes_none():
    z = torch.randn(2, 3)
    state = Adam(0.1).start(z)
    stays, remembers = Adam(0.1).again(z, state)
    assert stays is z
    assert remembers is state


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_unit_steps_in_half_precision_have_their_length_in_many_dimensions(dtype: torch.dtype):
    z = torch.zeros(1, 70_000, dtype=dtype)
    moved, _ = UnitGradient(1.0).step(z, torch.ones_like(z), UnitGradient(1.0).start(z))
    assert moved.double().norm().item() == pytest.approx(1.0, rel=1e-2)


def test_adam_walks_each_row_as_torch_does():
    start = torch.randn(3, 4, dtype=torch.float64)
    gradients = torch.randn(6, 3, 4, dtype=torch.float64) * torch.logspace(-8, 2, 6, dtype=torch.float64).view(6, 1, 1)
    rows = [row.clone().requires_grad_() for row in start]
    optimizers = [torch.optim.Adam([row], lr=0.03, betas=(0.8, 0.95), eps=1e-6) for row in rows]
    rule = Adam(0.03, betas=(0.8, 0.95), eps=1e-6)
    z, state = start, rule.start(start)
    for gradient in gradients:
        z, state = rule.step(z, gradient, state)
        for row, optimizer, of_row in zip(rows, optimizers, gradient):
            row.grad = of_row.clone()
            optimizer.step()
        torch.testing.assert_close(z, torch.stack(rows).detach())


def test_adam_counts_the_steps_of_each_example():
    # One that rested while the other moved goes on where it was.
    rule, z, gradient = Adam(0.1), torch.zeros(2, 3), torch.ones(2, 3)
    first, state = rule.step(z, gradient, rule.start(z))
    rested = {name: torch.stack((value[0], torch.zeros_like(value[1]))) for name, value in state.items()}
    second, _ = rule.step(torch.stack((first[0], z[1])), gradient, rested)
    torch.testing.assert_close(second[1], first[0])


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan])
def test_a_step_has_a_positive_length(wrong: float):
    with pytest.raises(ValueError, match=str(wrong)):
        UnitGradient(wrong)
    with pytest.raises(ValueError, match=str(wrong)):
        Adam(wrong)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adam_in_half_precision_steps_as_in_single(dtype: torch.dtype):
    gradient = torch.tensor([[1e-3, 0.0, 1.0]])
    z, state = torch.zeros(1, 3, dtype=dtype), Adam(0.05).start(torch.zeros(1, 3, dtype=dtype))
    for _ in range(3):
        z, state = Adam(0.05).step(z, gradient.to(dtype), state)
    assert z.dtype == dtype
    torch.testing.assert_close(z.float(), torch.tensor([[-0.15, 0.0, -0.15]]), rtol=0.02, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Adam(float("inf")), "positive and finite"),
        (lambda: Adam(0.1, betas=(1.0, 0.9)), r"betas must lie in \[0, 1\)"),
        (lambda: Adam(0.1, eps=-1.0), "eps must be 0 or more"),
        (lambda: UnitGradient(float("inf")), "positive and finite"),
        (lambda: UnitGradient(1.0, patience=1), "patience must be at least 2"),
    ],
)
def test_settings_that_cannot_step(make: Callable[[], StepRule], says: str):
    with pytest.raises(ValueError, match=says):
        make()


def test_patience_is_a_number_of_steps():
    with pytest.raises(TypeError, match="patience must be an int, received float"):
        UnitGradient(1.0, patience=2.5)
