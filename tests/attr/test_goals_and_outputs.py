r"""Goals of classes and of values, and what the output of a model means to them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import images

from captum_dcf import (
    AtLeast,
    AtMost,
    DiffeomorphicCounterfactual,
    Generator,
    Goal,
    LeaveClass,
    Near,
    ReachClass,
    Status,
    Verdict,
)


def value(x: Tensor) -> Tensor:
    return 4 * x.flatten(1).mean(1) ** 2


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("goal", [AtLeast(2.0), AtMost(0.3), Near(1.5, 0.05), AtLeast(torch.tensor([1.5, 1.7, 2.0]))])
def test_goals_of_a_regressor(generator: Generator, goal: Goal, shape: tuple[int, ...]):
    method = DiffeomorphicCounterfactual(lambda x: value(x).view(shape), generator)
    result = method.counterfactual(images(3), goal=goal)
    assert result.statuses() == [Status.FOUND] * 3
    assert goal.judge(value(result.counterfactuals), torch.arange(3)).reached.all()


@pytest.mark.parametrize("output", ["logits", "probabilities", "binary_logit"])
def test_the_kind_of_output_is_of_no_concern_to_goals_of_values(generator: Generator, output: str):
    method = DiffeomorphicCounterfactual(value, generator, output=output)
    assert value(method.perturb(images(3), goal=AtLeast(2.0))).min() >= 2


def test_a_class_can_be_left(method: DiffeomorphicCounterfactual):
    labels = torch.tensor([0, 1, 2])
    result = method.counterfactual(images(3), goal=LeaveClass(labels, 0.95))
    assert result.reached.all()
    probabilities = method.forward_func(result.counterfactuals).softmax(1)
    assert (probabilities[torch.arange(3), labels] < 0.05).all()


def test_probabilities_give_what_their_logits_give(classifier: nn.Module, generator: Generator):
    x = images(3)
    of_probabilities = DiffeomorphicCounterfactual(
        lambda x: classifier(x).softmax(1), generator, output="probabilities"
    )
    expected = DiffeomorphicCounterfactual(classifier, generator).attribute(x, target=1)
    torch.testing.assert_close(of_probabilities.attribute(x, target=1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("goal", [ReachClass(2, 0.9), LeaveClass(0, 0.9)])
def test_a_goal_of_classes_knows_the_kind_of_output(classifier: nn.Module, generator: Generator, goal: Goal):
    x, probabilities = images(6), nn.Sequential(classifier, nn.Softmax(1)).eval()
    expected = DiffeomorphicCounterfactual(classifier, generator).counterfactual(x, goal=goal)
    result = DiffeomorphicCounterfactual(probabilities, generator, output="probabilities").counterfactual(x, goal=goal)
    assert result.statuses() == expected.statuses()
    torch.testing.assert_close(result.end_scores, expected.end_scores)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_a_binary_logit_gives_what_its_two_logits_give(
    classifier: nn.Module, generator: Generator, shape: tuple[int, ...]
):
    def logit(x: Tensor) -> Tensor:
        logits = classifier(x)
        return (logits[:, 1] - logits[:, 0]).view(shape)

    binary = DiffeomorphicCounterfactual(logit, generator, output="binary_logit")
    two = DiffeomorphicCounterfactual(lambda x: classifier(x)[:, :2], generator)
    for target in (1, [0, 1, 1]):
        torch.testing.assert_close(binary.attribute(images(3), target), two.attribute(images(3), target))


def test_a_target_beside_a_class_goal_picks_one_of_many_binary_logits(classifier: nn.Module, generator: Generator):
    def logits(x: Tensor) -> Tensor:
        return classifier(x) - 5

    method = DiffeomorphicCounterfactual(logits, generator, output="binary_logit")
    labels = torch.tensor([1, 0, 1])
    result = method.counterfactual(images(3), target=[0, 1, 2], goal=ReachClass(labels, 0.9))
    assert result.reached.all()
    named = logits(result.counterfactuals).sigmoid()[torch.arange(3), torch.arange(3)]
    torch.testing.assert_close(torch.where(labels == 1, named, 1 - named), result.end_scores, rtol=1e-4, atol=1e-5)


def test_a_goal_of_ones_own_is_one_method(generator: Generator):
    class Between(Goal):
        def judge(self, output: Tensor, rows: Tensor, softening: float = 0.0) -> Verdict:
            outside = (1.0 - output).clamp_min(0) + (output - 1.2).clamp_min(0)
            return Verdict(outside, -outside, outside == 0)

    result = DiffeomorphicCounterfactual(value, generator).counterfactual(images(4), goal=Between(), max_steps=200)
    assert result.reached.all()
    found = value(result.counterfactuals)
    assert 1.0 <= float(found.min()) <= float(found.max()) <= 1.2


@pytest.mark.parametrize("confidence", [0.5, "high"])
def test_c26_a_confidence_beside_a_goal_is_refused(method: DiffeomorphicCounterfactual, confidence: object):
    for goal in (LeaveClass(1), AtLeast(1.0)):
        with pytest.raises(ValueError, match=f"confidence={confidence} belongs to target="):
            method.counterfactual(images(2), goal=goal, confidence=confidence)


def test_c10_a_value_that_needs_a_gradient_leaves_none_in_the_result(generator: Generator):
    goal = AtLeast(torch.tensor(2.0, requires_grad=True))
    result = DiffeomorphicCounterfactual(value, generator).counterfactual(images(2), goal=goal)
    assert result.reached.all()
    assert not any(one.requires_grad for one in vars(result).values() if isinstance(one, Tensor))


def test_a_class_goal_needs_no_target(classifier: nn.Module, generator: Generator):
    with pytest.raises(ValueError, match="LeaveClass names a class among all: omit target="):
        DiffeomorphicCounterfactual(classifier, generator).attribute(images(3), target=1, goal=LeaveClass(0))


def test_a_target_of_a_model_with_one_value(generator: Generator):
    method = DiffeomorphicCounterfactual(lambda x: x.flatten(1).mean(1), generator)
    with pytest.raises(ValueError, match=r"shape \(3,\) is one value per example: leave the target out"):
        method.attribute(images(3), target=0, goal=AtLeast(0.5))
