r"""Every method with every generator that fits it: ``captum_dcf.testing`` and the invariants of docs/design.md.

Float64 toys: what rounding decides elsewhere, it does not decide here.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import CASES, GENERATORS, LATENT, MAX_STEPS, made
from torch import Tensor
from toys import images

from captum_dcf import AtLeast, LeaveClass
from captum_dcf.testing import check_method, unchanged


@pytest.fixture
def x() -> Tensor:
    return images(5).double()


@pytest.mark.parametrize(("name", "generator"), CASES)
def test_promises(name: str, generator: str, x: Tensor):
    target = torch.tensor([0, 1, 2, 0, 1])
    assert len(check_method(made(name, generator), x, target, 1e-6, max_steps=MAX_STEPS, confidence=0.6)) == 9


@pytest.mark.parametrize(("name", "generator"), CASES)
@pytest.mark.parametrize("size", [1, 2, "auto"])
def test_any_window_gives_each_example_what_it_gets_alone(name: str, generator: str, size: int | str, x: Tensor):
    method = made(name, generator)
    asked = {"target": 1, "confidence": 0.6, "max_steps": MAX_STEPS}
    whole, windowed = method.counterfactual(x, **asked), method.counterfactual(x, internal_batch_size=size, **asked)
    assert torch.equal(whole.status, windowed.status)
    assert torch.equal(whole.steps, windowed.steps)
    torch.testing.assert_close(whole.counterfactuals, windowed.counterfactuals, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("name", "generator"), CASES)
def test_no_cache_survives_a_call(name: str, generator: str, x: Tensor):
    method = made(name, generator)
    asked = {"target": 1, "confidence": 0.6, "max_steps": MAX_STEPS}
    method.counterfactual(x, **asked)
    with torch.no_grad():
        for module in method.modules():
            for parameter in module.parameters():
                parameter.mul_(0.9)
    fresh = made(name, generator)
    with torch.no_grad():
        for module in fresh.modules():
            for parameter in module.parameters():
                parameter.mul_(0.9)
    again, other = method.counterfactual(x, **asked), fresh.counterfactual(x, **asked)
    assert torch.equal(again.counterfactuals, other.counterfactuals)
    assert torch.equal(again.reconstructions, other.reconstructions)


@pytest.mark.parametrize(("name", "generator"), CASES)
def test_the_path_is_that_of_the_search(name: str, generator: str, x: Tensor):
    method = made(name, generator)
    result = method.counterfactual(x, target=1, confidence=0.6, max_steps=MAX_STEPS, keep_path=True)
    assert result.path is not None
    for row, frames in enumerate(result.path):
        assert len(frames) <= int(result.steps[row]) + 1
        if len(frames):
            torch.testing.assert_close(frames[0], result.reconstructions[row])
            assert (frames == result.counterfactuals[row]).flatten(1).all(1).any()


@pytest.mark.parametrize(("name", "generator"), CASES)
def test_a_time_limit_ends_the_search_with_the_best_so_far(name: str, generator: str, x: Tensor):
    method = made(name, generator)
    result = method.counterfactual(x, target=1, confidence=0.9999, max_steps=MAX_STEPS, max_seconds=1e-9)
    assert {status.name for status in result.statuses()} <= {
        "TIME_LIMIT",
        "NOT_RECONSTRUCTED",
        "ALREADY_THERE",
        "FOUND",
    }
    assert not result.steps.any()
    assert result.counterfactuals.isfinite().all()


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"target": 3}, ValueError, "3"),
    ({"target": "a"}, TypeError, "'a'"),
    ({"target": None}, ValueError, "target"),
    ({"target": 1, "confidence": 1.5}, ValueError, "1.5"),
    ({"target": 1, "max_steps": 0}, ValueError, "0"),
    ({"target": 1, "internal_batch_size": "many"}, ValueError, "many"),
    ({"target": 1, "refine": "yes"}, TypeError, "yes"),
    ({"target": 1, "max_seconds": -1}, ValueError, "-1"),
    ({"goal": 1}, TypeError, "int"),
    ({"goal": LeaveClass(1), "confidence": 0.5}, ValueError, "0.5"),
    ({"target": 1, "patience": 3}, TypeError, "patience"),
    ({"target": 1, "latents": torch.zeros(2, 16)}, ValueError, "latents"),
]


@pytest.mark.parametrize(("name", "generator"), CASES)
def test_wrong_arguments_are_refused_before_a_search(name: str, generator: str, x: Tensor):
    method = made(name, generator)
    seen: list[int] = []
    handle = method.forward_func.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    for arguments, kind, word in WRONG:
        with unchanged(method.modules(), x), pytest.raises(kind, match=word):
            method.counterfactual(x, **arguments)
    handle.remove()
    # A class is known to be out of range once the model has said how many there are; nothing else asks it.
    assert sum(seen) <= len(x) + 40


@pytest.mark.parametrize("name", ["diffeomorphic", "revise", "latent shift"])
@pytest.mark.parametrize("generator", GENERATORS)
def test_work_is_the_examples_and_their_steps(name: str, generator: str, x: Tensor):
    method = made(name, generator)
    seen: list[int] = []
    method.forward_func.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    result = method.counterfactual(x, target=1, confidence=0.6, max_steps=MAX_STEPS)
    searched = int((result.steps > 0).sum()) if name == "latent shift" else 0  # the gradient of its line
    assert sum(seen) == 2 * len(x) + int(result.steps.sum()) + searched


@pytest.mark.parametrize("name", LATENT)
def test_a_goal_of_values_is_searched_for_in_latents(name: str, x: Tensor):
    method = made(name, "rotated")
    wanted = method.forward_func(x)[:, 2].detach() + 0.5
    result = method.counterfactual(x, target=2, goal=AtLeast(wanted), max_steps=200)
    values = method.forward_func(result.counterfactuals)[:, 2]
    assert (values[result.reached] >= wanted[result.reached] - 1e-9).all()
    assert result.reached.any()
