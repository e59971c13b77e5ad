r"""Latent shift: one backward pass, and a straight line in latent space."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import images

from captum_dcf import Generator, LatentShift, Status


class Counting(torch.autograd.Function):
    backward_passes = 0

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        Counting.backward_passes += 1
        return gradient


def test_it_costs_one_backward_pass(classifier: nn.Module, generator: Generator):
    Counting.backward_passes = 0
    method = LatentShift(lambda x: classifier(Counting.apply(x)), generator)
    result = method.counterfactual(images(6), target=[0, 1, 2] * 2, confidence=0.9, refine=True)
    assert result.reached.all()
    assert result.steps.max() > 1
    assert Counting.backward_passes == 1


def test_counterfactuals_lie_on_the_gradient_at_the_start(classifier: nn.Module, generator: Generator):
    x = images(6)
    result = LatentShift(classifier, generator, step_length=0.05).counterfactual(x, target=1, confidence=0.9)
    z = generator.encode(x).detach().requires_grad_()
    probability = classifier(generator.decode(z)).softmax(1)[:, 1]
    (gradient,) = torch.autograd.grad(probability.sum(), z)
    moved = result.end_latents - result.start_latents
    torch.testing.assert_close(moved.norm(dim=1), 0.05 * result.steps.float())
    assert torch.cosine_similarity(moved, gradient).min() > 0.999


def test_refining_shortens_the_last_step(classifier: nn.Module, generator: Generator):
    x, method = images(6), LatentShift(classifier, generator)
    whole = method.counterfactual(x, target=1, confidence=0.9)
    refined = method.counterfactual(x, target=1, confidence=0.9, refine=True)
    assert refined.reached.all()
    assert (refined.end_scores > 0.9).all()
    assert (refined.end_scores <= whole.end_scores).all()
    assert refined.end_scores.max() < whole.end_scores.max()
    # The last step is halved six times: a 64th of it less, and the goal is no longer reached.
    length = 4 / 28
    moved = (refined.end_latents - refined.start_latents).norm(dim=1)
    assert (moved <= length * refined.steps + 1e-5).all()
    assert (moved > length * (refined.steps - 1)).all()
    direction = (refined.end_latents - refined.start_latents) / moved[:, None]
    shorter = generator.decode(refined.end_latents - length / 64 * direction)
    assert (classifier(shorter).softmax(1)[:, 1] <= 0.9).all()


def test_the_path_is_the_line(classifier: nn.Module, generator: Generator):
    result = LatentShift(classifier, generator).counterfactual(images(3), target=1, confidence=0.9, keep_path=True)
    for row, frames in enumerate(result.path):
        assert len(frames) == int(result.steps[row]) + 1
        torch.testing.assert_close(frames[0], result.reconstructions[row])
        torch.testing.assert_close(frames[-1], result.counterfactuals[row])
        # Where nothing is clamped all steps are equal.
        torch.testing.assert_close(frames.diff(dim=0), (frames[1] - frames[0]).expand(len(frames) - 1, 1, 4, 4))


def test_the_line_is_twice_as_long_as_a_latent_typically(classifier: nn.Module, generator: Generator):
    method = LatentShift(lambda x: 0.01 * classifier(x), generator)
    assert method.default_max_steps == 56
    result = method.counterfactual(images(2), target=1)
    assert result.steps.tolist() == [56, 56]
    # √16 for 16 standard normal coordinates; the last steps only decode to images that were clamped.
    assert (result.end_latents - result.start_latents).norm(dim=1).max() <= 2 * 4 + 1e-4


def test_a_line_that_does_not_lead_there_says_so(generator: Generator):
    def bump(x: Tensor) -> Tensor:
        # Class 1 is likely on the first row's mean near 0.7 only, and the first row is pushed past it in one step.
        mean = x[:, 0, 0].mean(1)
        return torch.stack((torch.zeros_like(mean), 3 - 100 * (mean - 0.7).abs()), dim=1)

    x = torch.full((2, 1, 4, 4), 0.45)
    result = LatentShift(bump, generator, step_length=2.0).counterfactual(x, target=1, confidence=0.9)
    assert result.statuses() == [Status.STEP_LIMIT] * 2
    assert (result.end_scores >= result.start_scores).all()
    assert result.counterfactuals.isfinite().all()


def test_no_gradient_and_no_finite_numbers_have_their_names(generator: Generator):
    flat = LatentShift(lambda x: 0 * x.flatten(1)[:, :2], generator)
    assert flat.counterfactual(images(2), target=1).statuses() == [Status.STALLED] * 2

    def overflowing(x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack((0 * mean, torch.where(mean > 0.6, torch.inf, mean - 5)), dim=1)

    result = LatentShift(overflowing, generator).counterfactual(images(2), target=1)
    assert result.statuses() == [Status.NOT_FINITE] * 2
    assert result.counterfactuals.isfinite().all()


@pytest.mark.parametrize("length", [0.0, -1.0, float("nan")])
def test_a_length_that_is_none_is_refused(classifier: nn.Module, generator: Generator, length: float):
    with pytest.raises(ValueError, match="step_length must be positive"):
        LatentShift(classifier, generator, length)
