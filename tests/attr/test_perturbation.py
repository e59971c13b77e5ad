r"""Captum's own attacks as methods of ours."""

from __future__ import annotations

import pytest
import torch
from captum.robust import FGSM, PGD, Perturbation
from torch import Tensor, nn
from torch.nn import functional as F
from toys import images

from captum_dcf import AtLeast, LeaveClass, PerturbationCounterfactual, Status

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")

STEPS = {"radius": 0.4, "step_size": 0.05, "step_num": 15}


def loss(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


def test_pgd_gives_what_pgd_gives(classifier: nn.Module):
    x, target = images(6), torch.tensor([0, 1, 2] * 2)
    attack = PGD(classifier, loss, 0.0, 1.0)
    result = PerturbationCounterfactual(classifier, attack, STEPS).counterfactual(x, target, confidence=0.9)
    torch.testing.assert_close(result.counterfactuals, attack.perturb(x, target=target, targeted=True, **STEPS))
    assert result.statuses() == [Status.FOUND] * 6
    assert result.steps.tolist() == [1] * 6
    assert (classifier(result.counterfactuals).softmax(1).gather(1, target[:, None]) > 0.9).all()
    assert result.end_latents is None


def test_a_class_can_be_left_with_fgsm(classifier: nn.Module):
    x = images(6)
    before = classifier(x).argmax(1)
    method = PerturbationCounterfactual(classifier, FGSM(classifier, loss, 0.0, 1.0), {"epsilon": 0.3})
    result = method.counterfactual(x, goal=LeaveClass(before, 0.5))
    assert result.reached.all()
    assert (classifier(result.counterfactuals).argmax(1) != before).all()


def test_an_attack_that_fails_says_so(classifier: nn.Module):
    method = PerturbationCounterfactual(classifier, FGSM(classifier, loss), {"epsilon": 0.001})
    result = method.counterfactual(images(3), target=1)
    assert result.statuses() == [Status.STEP_LIMIT] * 3
    assert (result.end_scores > result.start_scores).all()


def test_the_default_loss_is_not_a_number_on_logits_and_changes_nothing():
    def negative(x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] - 5

    method = PerturbationCounterfactual(negative, PGD(negative), STEPS)
    result = method.counterfactual(images(3), target=1)
    assert result.statuses() == [Status.STEP_LIMIT] * 3
    assert torch.equal(result.counterfactuals, result.inputs)


def test_a_random_start_repeats_and_leaves_the_random_state(classifier: nn.Module):
    attack = PGD(classifier, loss, 0.0, 1.0)
    method = PerturbationCounterfactual(classifier, attack, {**STEPS, "random_start": True})
    before = torch.get_rng_state()
    first, second = (method.perturb(images(3), target=1, confidence=0.9) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


class Brighter(Perturbation):
    r"""A perturbation that knows neither targets nor bounds."""

    def perturb(self, inputs: Tensor, by: float) -> Tensor:
        return inputs + by


def test_a_perturbation_without_target_is_run_and_judged(classifier: nn.Module):
    x = torch.zeros(2, 1, 4, 4)
    x[0, 0, 1] = 0.5
    method = PerturbationCounterfactual(classifier, Brighter(), {"by": 0.9})
    result = method.counterfactual(x, target=1, confidence=0.9)
    assert result.statuses() == [Status.ALREADY_THERE, Status.STEP_LIMIT]
    assert result.counterfactuals.max() <= 1


def test_images_that_are_not_finite_are_not_returned(classifier: nn.Module):
    method = PerturbationCounterfactual(classifier, Brighter(), {"by": float("nan")})
    result = method.counterfactual(images(2), target=1)
    assert result.statuses() == [Status.NOT_FINITE] * 2
    assert torch.equal(result.counterfactuals, result.inputs)


def test_a_perturbation_may_write_into_its_inputs(classifier: nn.Module):
    class Writing(Perturbation):
        def perturb(self, inputs: Tensor) -> Tensor:
            return inputs.add_(0.1)

    x = images(2)
    before = x.clone()
    result = PerturbationCounterfactual(classifier, Writing()).counterfactual(x, target=1, keep_path=True)
    assert torch.equal(x, before)
    assert torch.equal(result.inputs, before)
    torch.testing.assert_close(torch.stack([frames[1] for frames in result.path]), (x + 0.1).clamp(0, 1))


class Cropping(Perturbation):
    def perturb(self, inputs: Tensor) -> Tensor:
        return inputs[..., :2]


def test_what_the_adapter_cannot_do_is_refused(classifier: nn.Module):
    method = PerturbationCounterfactual(classifier, PGD(classifier, loss), STEPS)
    with pytest.raises(ValueError, match="received AtLeast"):
        method.counterfactual(images(2), target=1, goal=AtLeast(2.0))
    with pytest.raises(ValueError, match="additional_forward_args=None only"):
        method.counterfactual(images(2), target=1, additional_forward_args=torch.ones(2))
    with pytest.raises(TypeError, match="received function"):
        PerturbationCounterfactual(classifier, lambda x: x)
    with pytest.raises(ValueError, match=r"must give images of shape \(2, 1, 4, 4\), received \(2, 1, 4, 2\)"):
        PerturbationCounterfactual(classifier, Cropping()).counterfactual(images(2), target=1)
