r"""The contrastive search: sparse changes, the outer search on c, the terms of its loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from toys import Rotated, images

from captum_dcf import AtLeast, ContrastiveCounterfactual, Generator, LeaveClass, ReachClass, Status
from captum_dcf.attr.contrastive import _hinge, class_probabilities


class Halving(nn.Module):
    r"""An autoencoder that sees only one half of every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.5))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.share * x


def test_untouched_pixels_are_exactly_untouched(classifier: nn.Module, generator: Generator):
    x = images(6)
    method = ContrastiveCounterfactual(classifier, generator, outer_steps=4)
    result = method.counterfactual(x, target=[0, 1, 2] * 2, confidence=0.5, max_steps=400)
    assert result.reached.all()
    # The last row of the image is in no logit: only a threshold keeps it as it was.
    assert (result.attributions[..., 3, :] == 0).all()
    assert (result.attributions == 0).float().mean() > 0.3


def test_more_runs_find_nearer_counterfactuals(classifier: nn.Module, generator: Generator):
    x = images(4)

    def distance(outer_steps: int) -> Tensor:
        method = ContrastiveCounterfactual(classifier, generator, c=1000.0, outer_steps=outer_steps)
        result = method.counterfactual(x, target=1, confidence=0.5, max_steps=40 * outer_steps)
        assert result.reached.all()
        return 0.1 * result.attributions.flatten(1).abs().sum(1) + result.attributions.flatten(1).square().sum(1)

    once, often = distance(1), distance(6)
    assert (often <= once + 1e-6).all()
    assert often.mean() < 0.7 * once.mean()


def test_steps_are_never_more_than_asked_for(classifier: nn.Module, generator: Generator):
    method = ContrastiveCounterfactual(classifier, generator, c=100.0)
    assert method.default_max_steps == 9000
    for most in (3, 9, 50):
        assert method.counterfactual(images(2), target=1, max_steps=most).steps.max() <= most


def test_more_confidence_than_a_lead_is_reached_too(classifier: nn.Module, generator: Generator):
    method = ContrastiveCounterfactual(classifier, generator, c=100.0, outer_steps=3)
    result = method.counterfactual(images(4), target=1, confidence=0.95, max_steps=300)
    assert result.reached.all()
    assert (result.end_scores > 0.95).all()


def test_a_class_can_be_left(classifier: nn.Module, generator: Generator):
    x = images(4)
    before = classifier(x).argmax(1)
    method = ContrastiveCounterfactual(classifier, generator, c=100.0, outer_steps=3)
    result = method.counterfactual(x, goal=LeaveClass(before, 0.5), max_steps=300)
    assert result.reached.all()
    assert (classifier(result.counterfactuals).argmax(1) != before).all()


def test_the_hinge_is_the_published_one_where_one_half_is_enough():
    logits = torch.tensor([[2.0, 1.0], [1.0, 1.5]], requires_grad=True)
    p = logits.softmax(1)
    expected = (p[:, 0] - p[:, 1] + 0.3).clamp_min(0)
    torch.testing.assert_close(_hinge(ReachClass(1, 0.5), logits, 0.3), expected)
    torch.testing.assert_close(_hinge(LeaveClass(0, 0.5), logits, 0.3), expected)


@pytest.mark.parametrize(
    ("kind", "output"), [("logits", [[0.0, 1.0]]), ("binary_logit", [[1.0]]), ("binary_logit", [1.0])]
)
def test_probabilities_of_every_kind_of_output(kind: str, output: list[object]):
    torch.testing.assert_close(class_probabilities(torch.tensor(output), kind), torch.tensor([[0.0, 1.0]]).softmax(1))


def test_the_autoencoder_is_the_generator_unless_that_is_exact(classifier: nn.Module):
    class Rough(Rotated):
        exact = False
        encoded = 0

        def encode(self, x: Tensor) -> Tensor:
            self.encoded += 1
            return super().encode(x)

    settings = {"target": 1, "confidence": 0.5, "max_steps": 20}
    rough, exact = Rough(), Rough()
    exact.exact = True
    for generator in (rough, exact):
        ContrastiveCounterfactual(classifier, generator, c=100.0, outer_steps=1).counterfactual(images(1), **settings)
    assert rough.encoded > 10
    assert exact.encoded == 2


def test_another_autoencoder_is_asked_and_left_as_it_was(classifier: nn.Module, generator: Generator):
    autoencoder = Halving().eval()
    method = ContrastiveCounterfactual(classifier, generator, autoencoder, c=100.0, outer_steps=1)
    # γ ‖x'/2‖² pulls all pixels to zero.
    result = method.counterfactual(images(2), target=1, confidence=0.99, max_steps=20)
    assert autoencoder.calls > 10
    assert autoencoder.share.requires_grad
    assert autoencoder.share.grad is None
    assert (result.counterfactuals[:, :, 3] < result.inputs[:, :, 3]).all()


def test_an_example_that_cannot_move_says_so(classifier: nn.Module, generator: Generator):
    method = ContrastiveCounterfactual(classifier, generator, c=1e-6, outer_steps=2)
    result = method.counterfactual(images(3), target=1)
    assert result.statuses() == [Status.STALLED] * 3
    assert torch.equal(result.counterfactuals, result.inputs)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kappa": -1.0}, "kappa must be 0 or more"),
        ({"beta": float("nan")}, "beta must be 0 or more"),
        ({"gamma": -1.0}, "gamma must be 0 or more"),
        ({"c": 0.0}, "c must be positive"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"outer_steps": 0}, "outer_steps must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    classifier: nn.Module, generator: Generator, arguments: dict[str, float], words: str
):
    with pytest.raises(ValueError, match=words):
        ContrastiveCounterfactual(classifier, generator, **arguments)


def test_what_is_no_module_and_no_class_is_refused(classifier: nn.Module, generator: Generator):
    with pytest.raises(TypeError, match="received function"):
        ContrastiveCounterfactual(classifier, generator, lambda x: x)
    with pytest.raises(ValueError, match="received AtLeast"):
        ContrastiveCounterfactual(classifier, generator).counterfactual(images(2), target=1, goal=AtLeast(2.0))


def test_an_autoencoder_that_is_a_generator_is_constant_for_the_search(classifier: nn.Module, generator: Generator):
    class Watched(Rotated):
        inside, outside, depth = 0, 0, 0

        def encode(self, x: Tensor) -> Tensor:
            Watched.inside, Watched.outside = Watched.inside + (self.depth > 0), Watched.outside + (self.depth == 0)
            return super().encode(x)

        @contextmanager
        def constant(self) -> Iterator[None]:
            self.depth += 1
            yield
            self.depth -= 1

    method = ContrastiveCounterfactual(classifier, generator, Watched(), gamma=1.0, outer_steps=1)
    method.counterfactual(images(2), target=1, max_steps=5)
    assert Watched.inside
    assert not Watched.outside
