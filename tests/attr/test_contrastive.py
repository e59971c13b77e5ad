r"""The contrastive search: sparse changes, runs that look for c, the terms of its loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from toys import Rotated, images

from captum_dcf import AtLeast, ContrastiveCounterfactual, LeaveClass, ReachClass, Status
from captum_dcf.attr.contrastive import Lead

ROWS = torch.arange(2)


class Halving(nn.Module):
    r"""An autoencoder that sees only one half of every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.5))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.share * x


def test_untouched_pixels_are_exactly_untouched(classifier: nn.Module):
    x = images(6)
    method = ContrastiveCounterfactual(classifier, outer_steps=4)
    result = method.counterfactual(x, target=[0, 1, 2] * 2, confidence=0.5, max_steps=400)
    assert result.reached.all()
    # The last row of the image is in no logit: only a threshold keeps it as it was.
    assert (result.attributions[..., 3, :] == 0).all()
    assert (result.attributions == 0).float().mean() > 0.3


def test_more_runs_find_nearer_counterfactuals(classifier: nn.Module):
    x = images(4)

    def distance(outer_steps: int) -> Tensor:
        method = ContrastiveCounterfactual(classifier, c=1000.0, outer_steps=outer_steps)
        result = method.counterfactual(x, target=1, confidence=0.5, max_steps=40 * outer_steps)
        assert result.reached.all()
        return 0.1 * result.attributions.flatten(1).abs().sum(1) + result.attributions.flatten(1).square().sum(1)

    once, often = distance(1), distance(6)
    assert (often <= once + 1e-6).all()
    assert often.mean() < 0.7 * once.mean()


def test_steps_are_never_more_than_asked_for(classifier: nn.Module):
    method = ContrastiveCounterfactual(classifier, c=100.0)
    assert method.default_max_steps == 9000
    for most in (3, 9, 50):
        assert method.counterfactual(images(2), target=1, max_steps=most).steps.max() <= most


def test_more_confidence_than_a_lead_is_reached_too(classifier: nn.Module):
    method = ContrastiveCounterfactual(classifier, c=100.0, outer_steps=3)
    result = method.counterfactual(images(4), target=1, confidence=0.95, max_steps=300)
    assert result.reached.all()
    assert (result.end_scores > 0.95).all()


def test_a_class_can_be_left(classifier: nn.Module):
    x = images(4)
    before = classifier(x).argmax(1)
    method = ContrastiveCounterfactual(classifier, c=100.0, outer_steps=3)
    result = method.counterfactual(x, goal=LeaveClass(before, 0.5), max_steps=300)
    assert result.reached.all()
    assert (classifier(result.counterfactuals).argmax(1) != before).all()


def test_an_example_that_cannot_move_says_so(classifier: nn.Module):
    method = ContrastiveCounterfactual(classifier, c=1e-6, outer_steps=2)
    result = method.counterfactual(images(3), target=1)
    assert result.statuses() == [Status.STALLED] * 3
    assert torch.equal(result.counterfactuals, result.inputs)


def test_the_first_iteration_is_the_published_one(classifier: nn.Module):
    x = images(3)
    c, beta, lr = 100.0, 0.05, 0.02
    p = classifier(leaf := x.clone().requires_grad_()).softmax(1)
    (gradient,) = torch.autograd.grad((p[:, [0, 2]].amax(1) - p[:, 1]).sum(), leaf)
    moved = -lr * c * gradient
    # ‖δ‖₂² has no slope at δ = 0; the soft threshold is β wide, whatever the rate.
    expected = moved.sign() * (moved.abs() - beta).clamp_min(0)
    method = ContrastiveCounterfactual(classifier, c=c, beta=beta, lr=lr, outer_steps=1, data_range=None)
    result = method.counterfactual(x, target=1, max_steps=1)
    assert (result.end_scores > result.start_scores).all()
    torch.testing.assert_close(result.attributions, expected, rtol=1e-4, atol=1e-6)


# The loss


def test_the_lead_is_the_published_hinge_where_one_half_is_enough():
    logits = torch.tensor([[2.0, 1.0], [1.0, 1.5]], requires_grad=True)
    p = logits.softmax(1)
    expected = (p[:, 0] - p[:, 1] + 0.3).clamp_min(0)
    torch.testing.assert_close(Lead(ReachClass(1, 0.5), 0.3).judge(logits, ROWS).loss, expected)
    torch.testing.assert_close(Lead(LeaveClass(0, 0.5), 0.3).judge(logits, ROWS).loss, expected)


def test_the_lead_is_over_the_strongest_of_the_others():
    p = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]])
    lead = Lead(ReachClass(torch.tensor([2, 0]), 0.5)).judge(p.log(), ROWS)
    torch.testing.assert_close(lead.loss, torch.tensor([0.5 - 0.3, 0.6 - 0.1]))
    leave = Lead(LeaveClass(torch.tensor([0, 1]), 0.5)).judge(p.log(), ROWS)
    torch.testing.assert_close(leave.loss, torch.tensor([0.5 - 0.3, 0.6 - 0.3]))


def test_the_lead_is_zero_only_once_it_is_held_and_the_goal_reached():
    p = torch.tensor([[0.3, 0.7], [0.04, 0.96]])
    # Ahead by 0.4, but not yet with a confidence of 0.95: the loss goes on below zero.
    lead = Lead(ReachClass(1, 0.95)).judge(p.log(), ROWS)
    torch.testing.assert_close(lead.loss, torch.tensor([0.3 - 0.7, 0.0]))
    # The goal is reached, but the lead of 0.95 that is asked for is not held.
    lead = Lead(ReachClass(1, 0.5), 0.95).judge(p.log(), ROWS)
    torch.testing.assert_close(lead.loss, torch.tensor([0.95 + 0.3 - 0.7, 0.95 + 0.04 - 0.96]))
    assert lead.reached.all()


def test_the_lead_says_what_its_goal_says():
    logits = torch.randn(6, 4)
    rows = torch.tensor([0, 0, 1, 1, 0, 1])
    for goal in (ReachClass(torch.tensor([2, 0]), 0.4), LeaveClass(torch.tensor([2, 0]), 0.7)):
        lead, plain = Lead(goal, 0.2).judge(logits, rows), goal.judge(logits, rows)
        assert torch.equal(lead.reached, plain.reached)
        assert torch.equal(lead.score, plain.score)
        assert torch.equal(Lead(goal).agrees(logits, logits.flip(0), rows), goal.agrees(logits, logits.flip(0), rows))
    with pytest.raises(ValueError, match=r"class 5 .* 0 to 3"):
        Lead(ReachClass(5)).check(logits)
    with pytest.raises(ValueError, match=r"received \(2,\) for 3 examples"):
        Lead(ReachClass(torch.tensor([2, 0]))).check_length(3)


# The autoencoder


def test_an_exact_generator_is_asked_for_nothing(classifier: nn.Module):
    class Counting(Rotated):
        encoded = 0

        def encode(self, x: Tensor) -> Tensor:
            self.encoded += 1
            return super().encode(x)

    settings = {"target": 1, "confidence": 0.5, "max_steps": 20}
    rough, exact = Counting(), Counting()
    rough.exact = False
    for autoencoder in (rough, exact):
        ContrastiveCounterfactual(classifier, autoencoder, c=100.0, outer_steps=1).counterfactual(images(1), **settings)
    assert rough.encoded > 10
    assert exact.encoded == 0


def test_an_autoencoder_is_asked_and_left_as_it_was(classifier: nn.Module):
    autoencoder = Halving().eval()
    method = ContrastiveCounterfactual(classifier, autoencoder, c=100.0, outer_steps=1)
    # γ ‖x'/2‖² pulls all pixels to zero.
    result = method.counterfactual(images(2), target=1, confidence=0.99, max_steps=20)
    assert autoencoder.calls > 10
    assert autoencoder.share.requires_grad
    assert autoencoder.share.grad is None
    assert (result.counterfactuals[:, :, 3] < result.inputs[:, :, 3]).all()


def test_without_its_weight_the_autoencoder_is_not_asked(classifier: nn.Module):
    autoencoder = Halving().eval()
    method = ContrastiveCounterfactual(classifier, autoencoder, gamma=0.0, c=100.0, outer_steps=1)
    method.counterfactual(images(2), target=1, confidence=0.5, max_steps=5)
    assert autoencoder.calls == 0


def test_an_autoencoder_that_is_a_generator_is_constant_for_the_search(classifier: nn.Module):
    class Watched(Rotated):
        exact = False
        inside, outside, depth = 0, 0, 0

        def encode(self, x: Tensor) -> Tensor:
            Watched.inside, Watched.outside = Watched.inside + (self.depth > 0), Watched.outside + (self.depth == 0)
            return super().encode(x)

        @contextmanager
        def constant(self) -> Iterator[None]:
            self.depth += 1
            yield
            self.depth -= 1

    method = ContrastiveCounterfactual(classifier, Watched(), gamma=1.0, outer_steps=1)
    method.counterfactual(images(2), target=1, max_steps=5)
    assert Watched.inside
    assert not Watched.outside


class Odd(nn.Module):
    def __init__(self, gives: str) -> None:
        super().__init__()
        self.gives = gives

    def forward(self, x: Tensor) -> object:
        return {
            "one value": x.mean((2, 3), keepdim=True),
            "one image": x[:1],
            "flat": x.flatten(1),
            "tuple": (x, x),
            "NoneType": None,
        }[self.gives]


@pytest.mark.parametrize("gives", ["one value", "one image", "flat", "tuple", "NoneType"])
def test_c28_an_autoencoder_has_to_give_images(classifier: nn.Module, gives: str):
    method = ContrastiveCounterfactual(classifier, Odd(gives))
    with pytest.raises((TypeError, ValueError), match=r"the autoencoder must return") as caught:
        method.attribute(images(3), target=1)
    assert gives in str(caught.value) or r"(3, 1, 4, 4), received (" in str(caught.value)


def test_an_autoencoder_that_writes_into_its_input_changes_nothing(classifier: nn.Module):
    settings = {"gamma": 1.0, "c": 100.0, "outer_steps": 1}
    first, second = (
        ContrastiveCounterfactual(classifier, nn.Hardtanh(0.4, 0.5, inplace=writes).eval(), **settings)
        for writes in (True, False)
    )
    asked = {"target": 1, "confidence": 0.5, "max_steps": 9}
    assert torch.equal(first.perturb(images(2), **asked), second.perturb(images(2), **asked))


def test_what_is_no_module_and_no_class_is_refused(classifier: nn.Module):
    with pytest.raises(TypeError, match="received function"):
        ContrastiveCounterfactual(classifier, lambda x: x)
    with pytest.raises(ValueError, match="received AtLeast"):
        ContrastiveCounterfactual(classifier).counterfactual(images(2), target=1, goal=AtLeast(2.0))
    with pytest.raises(ValueError, match="refine=False only"):
        ContrastiveCounterfactual(classifier).counterfactual(images(2), target=1, refine=True)


def test_the_defaults_are_the_papers(classifier: nn.Module):
    method = ContrastiveCounterfactual(classifier)
    settings = (method.kappa, method.beta, method.gamma, method.c, method.outer_steps, method.lr)
    assert settings == (0.0, 0.1, 100.0, 10.0, 9, 0.01)
