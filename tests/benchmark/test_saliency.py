from __future__ import annotations

import pytest
import torch
from captum.metrics import infidelity
from torch import nn
from toys import RowClassifier, images

from captum_dcf import DiffeomorphicCounterfactual
from captum_dcf.benchmark import (
    Case,
    Method,
    NotApplicable,
    SaliencyMap,
    deletion_measure,
    infidelity_measure,
    insertion_measure,
    saliency_method,
    sensitivity_measure,
)
from captum_dcf.benchmark.saliency import SALIENCY
from captum_dcf.metrics import deletion, insertion

X = images(4)
TARGETS = torch.full((4,), 2)


def case_of(method: Method, inputs=X):
    targets = torch.full((len(inputs),), 2)
    return Case(inputs, torch.zeros_like(targets), targets, method.explain(inputs, targets), method.explain)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)).eval()


@pytest.fixture
def counterfactual(classifier, generator):
    method = DiffeomorphicCounterfactual(classifier, generator)
    return case_of(Method("ours", lambda x, t: method.counterfactual(x, t, confidence=0.8)))


@pytest.mark.parametrize("name", SALIENCY)
def test_every_saliency_method_explains_the_class_the_model_sees(name, network):
    x = X.clone()
    outcome = saliency_method(name, network).explain(x, TARGETS)
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
    attributions = coarse.explain(X, TARGETS).attributions
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


def test_deletion_and_insertion_are_of_the_class_the_model_sees(classifier, counterfactual):
    seen = classifier(X).argmax(1)
    torch.testing.assert_close(
        deletion_measure(classifier)(counterfactual), deletion(classifier, X, counterfactual.attributions, seen)
    )
    torch.testing.assert_close(
        insertion_measure(classifier, 5)(counterfactual),
        insertion(classifier, X, counterfactual.attributions, seen, steps=5),
    )


def test_infidelity_of_the_gradient_of_a_linear_model_is_zero(classifier):
    values = infidelity_measure(classifier)(case_of(saliency_method("Saliency", classifier)))
    torch.testing.assert_close(values, torch.zeros(4), atol=1e-5, rtol=0)


def test_infidelity_of_a_counterfactual_is_captums_of_the_class_to_reach_as_a_share(classifier, counterfactual):
    def perturbed(inputs):
        change = 0.2 * torch.randn_like(inputs)
        return change, inputs - change

    torch.manual_seed(5)
    values = infidelity_measure(classifier, samples=8)(counterfactual)
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
    nothing = case_of(Method("nothing", lambda x, t: SaliencyMap(torch.zeros_like(x), t)))
    torch.testing.assert_close(infidelity_measure(classifier)(nothing), torch.ones(4))


def test_sensitivity_is_the_relative_change_of_the_attributions():
    constant = case_of(Method("constant", lambda x, t: SaliencyMap(torch.ones_like(x), t)))
    torch.testing.assert_close(sensitivity_measure()(constant), torch.zeros(4))
    # Attributions x: at most the radius for each of 16 pixels, relative to the length of x.
    itself = case_of(Method("itself", lambda x, t: SaliencyMap(x, t)))
    values = sensitivity_measure(radius=0.1, samples=3)(itself)
    assert ((values > 0) & (values <= 0.4 / X.flatten(1).norm(dim=1))).all()


def test_sensitivity_asks_for_the_same_targets(classifier, generator):
    asked = []

    def explain(x, t):
        asked.append((x, t))
        return x + t.view(-1, 1, 1, 1)

    targets = torch.tensor([0, 1, 2, 0])
    case = Case(X, targets, targets, explain(X, targets), explain)
    sensitivity_measure(samples=2)(case)
    assert torch.equal(asked[-1][1], targets.repeat_interleave(2))
    assert not asked[-1][0].requires_grad
