from __future__ import annotations

import pytest
import torch
from captum.metrics import infidelity
from torch import nn
from toys import RowClassifier, images

from captum_dcf import DiffeomorphicCounterfactual, ReachClass
from captum_dcf.benchmark import (
    Case,
    Method,
    NotApplicable,
    SaliencyMap,
    infidelity_metric,
    reach,
    saliency_method,
    sensitivity_metric,
    shift,
)
from captum_dcf.benchmark.saliency import SALIENCY

X = images(4)
GOAL = ReachClass(2)


def case_of(method: Method, model=None, labels=None):
    labels = torch.zeros(len(X)).long() if labels is None else labels
    goal_of = reach(2)
    return Case(X, labels, goal_of, method.explain(X, goal_of(labels)), method.explain, model)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)).eval()


@pytest.fixture
def counterfactual(classifier, generator):
    method = DiffeomorphicCounterfactual(classifier, generator)
    return case_of(Method("ours", lambda x, t: method.counterfactual(x, goal=ReachClass(t.label, 0.8))))


@pytest.mark.parametrize("name", SALIENCY)
def test_every_saliency_method_explains_the_class_the_model_sees(name, network):
    x = X.clone()
    outcome = saliency_method(name, network).explain(x, GOAL)
    assert isinstance(outcome, SaliencyMap)
    assert outcome.attributions.shape == x.shape
    assert not outcome.attributions.requires_grad
    assert torch.equal(outcome.explained, network(x).argmax(1))
    assert torch.equal(x, X)
    assert not x.requires_grad
    if name == "Saliency":
        leaf = X.clone().requires_grad_()
        network(leaf).max(1).values.sum().backward()
        torch.testing.assert_close(outcome.attributions, leaf.grad)


def test_further_arguments_are_those_of_attribute(network):
    coarse = saliency_method("Occlusion", network, sliding_window_shapes=(1, 4, 4), strides=(1, 4, 4))
    attributions = coarse.explain(X, GOAL).attributions
    assert (attributions == attributions[:, :, :1, :1]).all()


def test_what_does_not_apply_is_refused():
    with pytest.raises(ValueError, match=r"GuidedGradCam.*Conv2d.*RowClassifier"):
        saliency_method("GuidedGradCam", RowClassifier())
    with pytest.raises(ValueError, match=r"Saliency, InputXGradient.*received 'LIME'"):
        saliency_method("LIME", RowClassifier())


def test_a_saliency_map_has_no_counterfactual(network):
    case = case_of(saliency_method("Saliency", network))
    with pytest.raises(NotApplicable):
        case.counterfactuals  # noqa: B018


def test_infidelity_of_the_gradient_of_a_linear_model_is_zero(classifier):
    values = infidelity_metric(classifier)(case_of(saliency_method("Saliency", classifier)))
    torch.testing.assert_close(values, torch.zeros(4), atol=1e-5, rtol=0)


def test_infidelity_of_a_counterfactual_is_captums_of_the_class_to_reach_as_a_share(classifier, counterfactual):
    def perturbed(inputs):
        change = 0.2 * torch.randn_like(inputs)
        return change, inputs - change

    torch.manual_seed(5)
    values = infidelity_metric(classifier, samples=8)(counterfactual)
    torch.manual_seed(5)
    expected = infidelity(
        classifier, perturbed, X, counterfactual.attributions, target=2, n_perturb_samples=8, normalize=True
    )
    torch.manual_seed(5)
    noise = 0.2 * torch.randn(X.repeat_interleave(8, dim=0).shape)
    repeated = X.repeat_interleave(8, dim=0)
    change = (classifier(repeated) - classifier(repeated - noise))[:, 2].view(4, 8)
    torch.testing.assert_close(values, (expected / change.square().mean(1)).detach())
    assert ((values > 1e-3) & (values < 1)).all()


def test_infidelity_of_attributions_that_say_nothing_is_one(classifier):
    nothing = case_of(Method("nothing", lambda x, t: SaliencyMap(torch.zeros_like(x), t.label)))
    torch.testing.assert_close(infidelity_metric(classifier)(nothing), torch.ones(4))


def test_sensitivity_is_the_relative_change_of_the_attributions():
    constant = case_of(Method("constant", lambda x, t: SaliencyMap(torch.ones_like(x), t.label)))
    torch.testing.assert_close(sensitivity_metric(None)(constant), torch.zeros(4))
    # Attributions x: at most the radius for each of 16 pixels, relative to the length of x.
    itself = case_of(Method("itself", lambda x, t: SaliencyMap(x, t.label)))
    values = sensitivity_metric(None, radius=0.1, samples=3)(itself)
    assert ((values > 0) & (values <= 0.4 / X.flatten(1).norm(dim=1))).all()


def test_sensitivity_asks_for_the_same_goals():
    asked = []

    def explain(x, goal):
        asked.append((x, goal))
        return x + goal.value.view(-1, 1, 1, 1)

    labels = torch.tensor([0.0, 1.0, 2.0, 0.5])
    case = Case(X, labels, shift(1.0), explain(X, shift(1.0)(labels)), explain, None)
    sensitivity_metric(None, samples=2)(case)
    assert torch.equal(asked[-1][1].value, labels.repeat_interleave(2) + 1)
    assert not asked[-1][0].requires_grad


def test_infidelity_asks_for_twenty_noisy_images_of_each(classifier):
    sizes = []

    def model(x):
        sizes.append(len(x))
        return classifier(x)

    infidelity_metric(model)(case_of(saliency_method("Saliency", classifier)))
    assert max(sizes) == 20 * len(X)


def test_both_say_that_lower_is_better(classifier):
    for metric in (infidelity_metric(classifier), sensitivity_metric(classifier)):
        assert (metric.better, metric.of) == ("lower", "example")
