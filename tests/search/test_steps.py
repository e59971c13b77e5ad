r"""Step rules: lengths, Adam as torch has it, half precision, settings that are refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_dcf.search import Adam, StepRule, UnitGradient
from captum_dcf.search.step import unit


def step(rule: StepRule, z: Tensor, gradient: Tensor, scale: float = 1.0) -> Tensor:
    r"""Where the first step of a rule leads."""
    moved, _ = rule.step(z, gradient, torch.full_like(z[:, :1], scale), rule.start(z))
    return moved


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1.0, 1e30, 3e38])
def test_a_unit_step_has_its_length_whatever_the_size_of_the_gradient(size: float):
    direction = torch.randn(5, 100).sign() * torch.linspace(0.3, 1, 100)
    moved = step(UnitGradient(0.7), torch.zeros(5, 100), direction * size)
    torch.testing.assert_close(moved.norm(dim=1), torch.full((5,), 0.7))
    # The smallest of these is stored with few digits, so its direction is only nearly that of the others.
    torch.testing.assert_close(moved, -0.7 * direction / direction.norm(dim=1, keepdim=True), rtol=2e-4, atol=2e-5)


def test_a_unit_step_by_hand():
    z, gradient = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[3.0, -4.0], [0.0, 0.0]])
    torch.testing.assert_close(step(UnitGradient(10.0), z, gradient), torch.tensor([[-5.0, 9.0], [0.0, 0.0]]))
    assert z.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert gradient.tolist() == [[3.0, -4.0], [0.0, 0.0]]


@pytest.mark.parametrize("rule", [UnitGradient(0.8), Adam(0.8)])
def test_the_scale_multiplies_the_step_of_each_example(rule: StepRule):
    z, gradient = torch.randn(3, 4), torch.randn(3, 4)
    whole = step(rule, z, gradient) - z
    moved, _ = rule.step(z, gradient, torch.tensor([[1.0], [0.5], [0.1]]), rule.start(z))
    torch.testing.assert_close(moved - z, whole * torch.tensor([[1.0], [0.5], [0.1]]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "length",
    [
        torch.tensor(0.7),
        torch.tensor([0.7]),
        torch.tensor([0.7], dtype=torch.float64),
        np.float64(0.7),
        lambda z: 0.7,
        lambda z: torch.full((len(z), 1), 0.7),
        lambda z: torch.tensor(0.7, dtype=torch.float64),
        lambda z: torch.full((len(z), 1), 0.7, dtype=torch.float64),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_length_of_any_kind_leaves_the_precision_of_the_points(length: object, dtype: torch.dtype):
    z, gradient = torch.zeros(3, 4, dtype=dtype), torch.ones(3, 4, dtype=dtype)
    moved = step(UnitGradient(length), z, gradient)
    assert moved.dtype == dtype
    torch.testing.assert_close(moved.float(), torch.full((3, 4), -0.35), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("keepdim", [False, True])
def test_a_length_may_differ_between_examples(keepdim: bool):
    rule = UnitGradient(lambda z: z.norm(dim=1, keepdim=keepdim) / 10)
    z = torch.tensor([[1.0, 0.0], [0.0, 4.0]])
    torch.testing.assert_close(rule.start(z)["length"], torch.tensor([[0.1], [0.4]]))
    torch.testing.assert_close((step(rule, z, torch.ones(2, 2)) - z).norm(dim=1), torch.tensor([0.1, 0.4]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_unit_steps_in_half_precision_have_their_length_in_many_dimensions(dtype: torch.dtype):
    z = torch.zeros(1, 70_000, dtype=dtype)
    assert step(UnitGradient(1.0), z, torch.ones_like(z)).double().norm().item() == pytest.approx(1.0, rel=1e-2)


def test_a_unit_of_nothing_is_nothing():
    assert torch.equal(unit(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_the_patience_of_unit_steps_is_a_hundred():
    assert UnitGradient(1.0).patience == Adam(0.1).patience == 100


def test_adam_walks_each_row_as_torch_does():
    start = torch.randn(3, 4, dtype=torch.float64)
    gradients = torch.randn(6, 3, 4, dtype=torch.float64) * torch.logspace(-8, 2, 6, dtype=torch.float64).view(6, 1, 1)
    rows = [row.clone().requires_grad_() for row in start]
    optimizers = [torch.optim.Adam([row], lr=0.03, betas=(0.8, 0.95), eps=1e-6) for row in rows]
    rule = Adam(0.03, betas=(0.8, 0.95), eps=1e-6)
    z, state, whole = start, rule.start(start), torch.ones(3, 1, dtype=torch.float64)
    for gradient in gradients:
        z, state = rule.step(z, gradient, whole, state)
        for row, optimizer, of_row in zip(rows, optimizers, gradient):
            row.grad = of_row.clone()
            optimizer.step()
        torch.testing.assert_close(z, torch.stack(rows).detach())


def test_the_defaults_of_adam_are_those_of_torch():
    defaults = torch.optim.Adam([torch.zeros(1, requires_grad=True)]).defaults
    assert (Adam(0.1).betas, Adam(0.1).eps) == (defaults["betas"], defaults["eps"])


def test_adam_counts_the_steps_of_each_example():
    # One that rested while the other moved goes on where it was.
    rule, z, gradient, whole = Adam(0.1), torch.zeros(2, 3), torch.ones(2, 3), torch.ones(2, 1)
    first, state = rule.step(z, gradient, whole, rule.start(z))
    rested = {name: torch.stack((value[0], torch.zeros_like(value[1]))) for name, value in state.items()}
    second, _ = rule.step(torch.stack((first[0], z[1])), gradient, whole, rested)
    torch.testing.assert_close(second[1], first[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adam_in_half_precision_steps_as_in_single(dtype: torch.dtype):
    gradient, whole = torch.tensor([[1e-3, 0.0, 1.0]]), torch.ones(1, 1, dtype=dtype)
    z, state = torch.zeros(1, 3, dtype=dtype), Adam(0.05).start(torch.zeros(1, 3, dtype=dtype))
    for _ in range(3):
        z, state = Adam(0.05).step(z, gradient.to(dtype), whole, state)
    assert z.dtype == dtype
    torch.testing.assert_close(z.float(), torch.tensor([[-0.15, 0.0, -0.15]]), rtol=0.02, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: UnitGradient(0.0), ValueError, r"0\.0"),
        (lambda: UnitGradient(-1.0), ValueError, r"-1\.0"),
        (lambda: UnitGradient(math.nan), ValueError, "nan"),
        (lambda: UnitGradient(math.inf), ValueError, "inf"),
        (lambda: UnitGradient("long"), TypeError, "str"),
        (lambda: UnitGradient(True), TypeError, "bool"),
        (lambda: UnitGradient(None), TypeError, "NoneType"),
        (lambda: UnitGradient(torch.ones(2)), ValueError, r"\(2,\)"),
        (lambda: UnitGradient(1.0, patience=1), ValueError, "at least 2.*1"),
        (lambda: UnitGradient(1.0, patience=0), ValueError, "0"),
        (lambda: UnitGradient(1.0, patience=2.5), TypeError, "float"),
        (lambda: UnitGradient(1.0, patience=10**30), ValueError, str(10**30)),
        (lambda: Adam(0.0), ValueError, r"0\.0"),
        (lambda: Adam(math.inf), ValueError, "inf"),
        (lambda: Adam("fast"), TypeError, "str"),
        (lambda: Adam(0.1, betas=(1.0, 0.9)), ValueError, r"\[0, 1\).*1\.0"),
        (lambda: Adam(0.1, betas=(0.9,)), ValueError, r"\(0\.9,\)"),
        (lambda: Adam(0.1, betas=0.9), ValueError, r"0\.9"),
        (lambda: Adam(0.1, betas=("a", "b")), ValueError, "'a'"),
        (lambda: Adam(0.1, eps=-1.0), ValueError, r"-1\.0"),
        (lambda: Adam(0.1, eps=math.inf), ValueError, "inf"),
        (lambda: Adam(0.1, eps="small"), TypeError, "str"),
    ],
)
def test_settings_that_cannot_step_are_refused(make: Callable[[], StepRule], error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        make()
