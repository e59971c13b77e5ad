r"""What DiffeomorphicCounterfactual finds, and how it walks there."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from toys import RowClassifier, images

from captum_dcf import (
    Adam,
    Counterfactual,
    DiffeomorphicCounterfactual,
    Generator,
    Pixels,
    ReachClass,
    Status,
    UnitGradient,
)


def test_the_three_ways_to_ask_give_one_answer(method: DiffeomorphicCounterfactual):
    x = images(3)
    result = method.counterfactual(x, target=1)
    assert isinstance(result, Counterfactual)
    assert torch.equal(result.inputs, x)
    assert torch.equal(method.attribute(x, target=1), result.attributions)
    assert torch.equal(method.perturb(x, target=1), result.counterfactuals)
    assert torch.equal(method(x, target=1), result.counterfactuals)


def test_a_counterfactual_is_what_the_model_says_it_is(method: DiffeomorphicCounterfactual):
    result = method.counterfactual(images(5), target=[0, 1, 2, 0, 1], confidence=0.95)
    probabilities = method.forward_func(result.counterfactuals).softmax(1)[torch.arange(5), [0, 1, 2, 0, 1]]
    assert result.statuses() == [Status.FOUND] * 5
    assert (probabilities > 0.95).all()
    torch.testing.assert_close(probabilities, result.end_scores)
    before = method.forward_func(images(5)).softmax(1)[torch.arange(5), [0, 1, 2, 0, 1]]
    torch.testing.assert_close(before, result.start_scores)
    # An exact generator changes nothing.
    torch.testing.assert_close(result.reconstruction_scores, before)
    torch.testing.assert_close(result.reconstructions, images(5))
    assert result.counterfactuals.min() >= 0
    assert result.counterfactuals.max() <= 1


def test_c36_the_confidence_has_to_be_exceeded(generator: Generator):
    method = DiffeomorphicCounterfactual(lambda x: 0 * x.flatten(1)[:, :2], generator)
    assert method.counterfactual(images(2), target=0, confidence=0.5).statuses() == [Status.STALLED] * 2
    assert method.counterfactual(images(2), target=0, confidence=0.49).statuses() == [Status.ALREADY_THERE] * 2


def test_by_default_a_step_is_a_28th_of_the_typical_length_but_careful(classifier: nn.Module, generator: Generator):
    x = images(4)
    result = DiffeomorphicCounterfactual(classifier, generator, softening=0).counterfactual(x, target=1, max_steps=1)
    z = result.start_latents.clone().requires_grad_()
    loss = nn.functional.cross_entropy(classifier(generator.decode(z)), torch.ones(4).long(), reduction="none")
    [gradient] = torch.autograd.grad(loss.sum(), z)
    promised = loss.detach() / gradient.norm(dim=1)
    lengths = (result.end_latents - result.start_latents).norm(dim=1)
    # √16 / 28, for the 16 standard normal coordinates, or a quarter of the way to where a straight line would end.
    torch.testing.assert_close(lengths, (promised / 4).clamp_max(4 / 28))


def test_a_slope_that_promises_much_leaves_the_step_at_a_28th(generator: Generator):
    def faint(x: torch.Tensor) -> torch.Tensor:
        mean = x.flatten(1).mean(1)
        return 0.01 * torch.stack((-mean, mean), 1)

    result = DiffeomorphicCounterfactual(faint, generator).counterfactual(images(4), target=1, max_steps=1)
    lengths = (result.end_latents - result.start_latents).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((4,), 4 / 28))


def test_the_step_rule_can_be_chosen(classifier: nn.Module, generator: Generator):
    x = images(4)
    one = DiffeomorphicCounterfactual(classifier, generator, UnitGradient(0.3)).counterfactual(x, 1, max_steps=1)
    torch.testing.assert_close((one.end_latents - one.start_latents).norm(dim=1), torch.full((4,), 0.3))
    adam = DiffeomorphicCounterfactual(classifier, generator, Adam(0.02)).counterfactual(x, 1, max_steps=1)
    # The first step of Adam moves every coordinate by its learning rate.
    torch.testing.assert_close(
        (adam.end_latents - adam.start_latents).abs(), torch.full((4, 16), 0.02), rtol=1e-3, atol=0
    )


class Curved(nn.Module):
    r"""A classifier that is nowhere linear."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(128, 3))

    def forward(self, x: Tensor) -> Tensor:
        return 20 * self.body(x)


def test_a_step_in_latents_follows_the_induced_metric():
    # x = A z: a small step moves x along A Aᵀ ∇ₓ, where in pixels it would move along ∇ₓ.
    scales = torch.linspace(0.1, 2, 16)

    class Scaled(Pixels):
        def encode(self, x: Tensor) -> Tensor:
            return x.flatten(1) / scales

        def decode(self, z: Tensor) -> Tensor:
            return super().decode(z * scales)

    x, model = images(1), Curved()
    loss = -model(leaf := x.clone().requires_grad_()).log_softmax(1)[:, 1].sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    method = DiffeomorphicCounterfactual(model, Scaled((1, 4, 4), None), UnitGradient(1e-3), softening=0)
    moved = method.counterfactual(x, 1, max_steps=1).latent_change.flatten()
    expected = -(scales.square() * gradient.flatten())
    torch.testing.assert_close(moved / moved.norm(), expected / expected.norm(), rtol=1e-2, atol=1e-3)


def test_softening_divides_the_logits_by_their_spread():
    x, model = images(1), Curved()
    step = UnitGradient(1e-3)
    for softening in (0.0, 0.7, 1.5):
        logits = model(leaf := x.clone().requires_grad_())
        temperature = (softening * logits.detach().log_softmax(1).std(1, keepdim=True)).clamp_min(1)
        (gradient,) = torch.autograd.grad((logits / temperature).log_softmax(1)[:, 1].sum(), leaf)
        method = DiffeomorphicCounterfactual(model, Pixels((1, 4, 4), None), step, softening)
        moved = method.counterfactual(x, 1, max_steps=1).latent_change
        assert torch.cosine_similarity(moved.flatten(), gradient.flatten(), dim=0) > 0.999


def test_a_goal_of_a_class_is_what_target_is(classifier: nn.Module, generator: Generator):
    x = images(6)
    method = DiffeomorphicCounterfactual(classifier, generator)
    expected = method.counterfactual(x, target=2, confidence=0.9)
    assert torch.equal(method.perturb(x, goal=ReachClass(2, 0.9)), expected.counterfactuals)


def test_refining_ends_nearer_to_the_threshold(method: DiffeomorphicCounterfactual):
    plain = method.counterfactual(images(6), target=1)
    refined = method.counterfactual(images(6), target=1, refine=True)
    assert refined.reached.all()
    assert (refined.end_scores > 0.99).all()
    assert (refined.end_scores <= plain.end_scores).all()
    assert (refined.end_scores < plain.end_scores).any()


def test_the_path_leads_from_reconstruction_to_counterfactual(method: DiffeomorphicCounterfactual):
    result = method.counterfactual(images(4), target=1, keep_path=True, refine=True)
    for row, frames in enumerate(result.path):
        torch.testing.assert_close(frames[0], result.reconstructions[row])
        torch.testing.assert_close(frames[-1], result.counterfactuals[row])
        # All steps, the reconstruction, and what refining made of the last step.
        assert len(frames) == int(result.steps[row]) + 2


def test_start_latents_may_be_given(method: DiffeomorphicCounterfactual, generator: Generator):
    x = images(3)
    once = method.counterfactual(x, target=1)
    again = method.counterfactual(x, target=2, latents=once.start_latents)
    expected = method.counterfactual(x, target=2)
    torch.testing.assert_close(again.counterfactuals, expected.counterfactuals)
    # Elsewhere the reconstruction is another image.
    moved = method.counterfactual(x, target=1, latents=once.start_latents + 0.01)
    torch.testing.assert_close(moved.reconstructions, generator.decode(once.start_latents + 0.01))
    with pytest.raises(ValueError, match=r"each of the 3 inputs, received \(2, 16\)"):
        method.counterfactual(x, target=1, latents=once.start_latents[:2])


def test_c8_an_image_that_reaches_the_goal_is_said_to_whoever_made_it():
    class Brighter(Generator):
        def encode(self, x: Tensor) -> Tensor:
            return x.flatten(1)

        def decode(self, z: Tensor) -> Tensor:
            return (z + 0.8).view(-1, 1, 4, 4)

    def bright(x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack((0 * mean, (mean - 0.5) * 40), 1)

    result = DiffeomorphicCounterfactual(bright, Brighter()).counterfactual(torch.full((2, 1, 4, 4), 0.2), target=1)
    assert result.statuses() == [Status.NOT_RECONSTRUCTED] * 2
    assert result.reached.all()
    assert torch.equal(result.reached, bright(result.counterfactuals).softmax(1)[:, 1] > 0.99)


def test_a_reconstruction_that_changes_the_answer_may_be_searched_from():
    class Darker(Generator):
        def encode(self, x: Tensor) -> Tensor:
            return x.flatten(1)

        def decode(self, z: Tensor) -> Tensor:
            return (z - 0.4).view(-1, 1, 4, 4)

    def bands(x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return 40 * torch.stack((0.3 - mean, (mean - 0.3).clamp_max(0.3), mean - 0.8), 1)

    method = DiffeomorphicCounterfactual(bands, Darker())
    x = torch.full((2, 1, 4, 4), 0.5)
    stopped = method.counterfactual(x, target=2)
    assert (stopped.statuses(), stopped.reached.tolist()) == ([Status.NOT_RECONSTRUCTED] * 2, [False] * 2)
    assert stopped.steps.tolist() == [0, 0]
    result = method.counterfactual(x, target=2, search_unreconstructed=True)
    assert result.statuses() == [Status.NOT_RECONSTRUCTED] * 2
    assert result.reached.all()
    assert bands(result.counterfactuals).argmax(1).tolist() == [2, 2]


def test_c18_classes_that_the_model_rules_out_do_not_end_the_search(classifier: nn.Module, generator: Generator):
    ruled_out = torch.tensor([True, False, False])
    masked = DiffeomorphicCounterfactual(lambda x: classifier(x).masked_fill(ruled_out, -torch.inf), generator)
    assert masked.counterfactual(images(4), target=1).statuses() == [Status.FOUND] * 4


def test_a_method_can_be_copied(method: DiffeomorphicCounterfactual):
    twin = copy.deepcopy(method)
    assert torch.equal(twin.attribute(images(2), target=1), method.attribute(images(2), target=1))


def test_a_generator_of_ones_own_without_layers_needs_no_init(classifier: nn.Module):
    class Halved(Generator):
        def encode(self, x: Tensor) -> Tensor:
            return 2 * x.flatten(1)

        def decode(self, z: Tensor) -> Tensor:
            return (z / 2).view(len(z), 1, 4, 4)

    assert DiffeomorphicCounterfactual(RowClassifier(), Halved()).counterfactual(images(3), target=1).reached.all()
