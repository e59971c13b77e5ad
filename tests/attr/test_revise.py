r"""REVISE is our search with one more term: nothing with λ = 0, a pull back to the input otherwise."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import images

from captum_dcf import Adam, AtLeast, DiffeomorphicCounterfactual, Generator, Pixels, Revise


def test_without_a_distance_it_is_our_search_with_adam(classifier: nn.Module, generator: Generator):
    x, target = images(9), [0, 1, 2] * 3
    settings = {"max_steps": 60, "keep_path": True, "refine": True}
    plain = DiffeomorphicCounterfactual(classifier, generator, Adam(0.05), softening=0.0)
    ours = plain.counterfactual(x, target, **settings)
    revised = Revise(classifier, generator, 0.0, Adam(0.05)).counterfactual(x, target, **settings)
    for name in ("counterfactuals", "end_latents", "steps", "status", "end_scores", "frames"):
        assert torch.equal(getattr(revised, name), getattr(ours, name))


def test_the_first_step_follows_the_gradient_of_loss_plus_distance():
    def model(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).square().sum(1)

    # With the identity and plain gradient steps one step can be reckoned by hand, here the second: at the first the
    # image is the input and the distance has no slope.
    weight, lr = 0.3, 0.01
    x = torch.tensor([[0.2, -0.4, 0.6]])
    method = Revise(model, Pixels((3,), None), weight, Plain(lr))
    [path] = method.counterfactual(x, goal=AtLeast(100.0), max_steps=2, keep_path=True).path
    first = x + lr * 2 * x
    second = first + lr * (2 * first - weight * (first - x).sign())
    torch.testing.assert_close(path[1:], torch.cat((first, second)))


def test_the_heavier_the_distance_the_nearer_the_counterfactual(classifier: nn.Module, generator: Generator):
    x = images(9)
    l1 = []
    for weight in (0.0, 0.1, 0.3):
        result = Revise(classifier, generator, weight, Adam(0.01)).counterfactual(x, target=1, confidence=0.8)
        assert result.reached.all()
        l1.append(result.attributions.flatten(1).abs().sum(1).mean())
    assert l1[0] > l1[1] > l1[2]


def test_the_defaults(classifier: nn.Module, generator: Generator):
    method = Revise(classifier, generator)
    assert isinstance(method.step_rule, Adam)
    assert (method.step_rule.lr, method.distance_weight, method.softening) == (0.05, 0.001, 0.0)


@pytest.mark.parametrize("weight", [-0.1, float("inf"), float("nan")])
def test_a_weight_that_is_none_is_refused(classifier: nn.Module, generator: Generator, weight: float):
    with pytest.raises(ValueError, match="distance_weight must be finite and 0 or more"):
        Revise(classifier, generator, weight)


class Plain(Adam):
    def step(self, z, gradient, scale, state):
        return z - self.lr * gradient, state
