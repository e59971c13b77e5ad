r"""Metrics by name: every registered one is given the judge, the images and the classes that it is of."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import Rotated, RowClassifier, images

from captum_dcf import Counterfactual, metrics
from captum_dcf.benchmark import Case, Method, NotApplicable, SaliencyMap, at_least, reach
from captum_dcf.benchmark.binding import CAPTUM, make_metric
from captum_dcf.benchmark.setup import Setup
from captum_dcf.generators import Support
from captum_dcf.metrics import METRICS
from captum_dcf.search import Status

X, OTHER = images(5), images(5, seed=1)
REFERENCES, LABELS = images(40, seed=2), torch.arange(40) % 3
TARGET, LATENTS = 2, X.flatten(1)


class Darker(nn.Module):
    """An autoencoder of a class, or of all."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


class Flow(Rotated):
    """With a density."""

    support = Support("log_prob", (-3.0, -2.0, -1.0, 0.0))

    def log_prob(self, x):
        return -self.encode(x).square().sum(1)


class ZooOfToys:
    """What a plan names: another classifier, autoencoders of three classes, one of all."""

    def __init__(self):
        torch.manual_seed(1)
        other = RowClassifier()
        nn.init.normal_(other.linear.weight)
        self.models = {"other": other.eval(), "ae": Darker(0.8), "features": nn.Flatten(), "flow": Flow()}

    def load(self, name, is_generator=False):
        return self.models[name]

    def per_class(self, pattern):
        assert pattern == "ae-{}"
        return {label: Darker(0.9 + 0.02 * label) for label in range(3)}


@pytest.fixture
def setup(classifier):
    return Setup(classifier, {"flow": Flow()}, [0.5], ZooOfToys(), lambda: (REFERENCES, LABELS))


@pytest.fixture
def case(classifier):
    method = Method("toy", lambda x, goal: x.flip(-1))
    steps = torch.zeros(5).long()
    status, reached, score = torch.full((5,), Status.FOUND), torch.ones(5).bool(), torch.zeros(5)
    result = Counterfactual(
        X, OTHER, 0.9 * X, status, reached, steps, *[score] * 4, start_latents=LATENTS, end_latents=2 * LATENTS
    )
    # The labels of the data set are not the classes that the model sees.
    return Case(X, (classifier(X).argmax(1) + 1) % 3, reach(TARGET), result, method.explain, classifier)


def svm():
    from captum_dcf.training.oracle import fit_svm_oracle

    return fit_svm_oracle(REFERENCES, LABELS)


def per_class():
    return ZooOfToys().per_class("ae-{}")


def of_model(name):
    return ZooOfToys().load(name)


SEEN = RowClassifier()(X).argmax(1)
AUTOENCODERS = {"autoencoders": "ae-{}"}
# By metric: its entry in a plan, and the same number asked for directly.
DIRECTLY = {
    "cout": ({"steps": 4}, lambda: metrics.cout(RowClassifier(), X, OTHER, TARGET, SEEN, steps=4)),
    "deletion": ({}, lambda: metrics.deletion(RowClassifier(), X, OTHER - X, SEEN)),
    "denoised_source": (
        {"autoencoder": "ae"},
        lambda: metrics.denoised_source(RowClassifier(), Darker(0.8), OTHER, SEEN),
    ),
    "denoised_validity": (
        {"autoencoder": "ae"},
        lambda: metrics.denoised_validity(RowClassifier(), Darker(0.8), OTHER, TARGET),
    ),
    "frechet_distance": (
        {"network": "features"},
        lambda: metrics.frechet_distance(nn.Flatten(), OTHER, REFERENCES),
    ),
    "im1": (AUTOENCODERS, lambda: metrics.im1(per_class(), OTHER, TARGET, SEEN)),
    "im2": (
        {**AUTOENCODERS, "autoencoder": "ae"},
        lambda: metrics.im2(per_class(), Darker(0.8), OTHER, TARGET),
    ),
    "insertion": ({"steps": 5}, lambda: metrics.insertion(RowClassifier(), X, OTHER - X, SEEN, steps=5)),
    "l1": ({}, lambda: metrics.l1(X, OTHER)),
    "l2_input": ({}, lambda: metrics.l2_input(X, OTHER)),
    "l2_latent": ({}, lambda: metrics.l2_latent(LATENTS, 2 * LATENTS)),
    "l2_latent_encoded": ({"generator": "flow"}, lambda: metrics.l2_latent_encoded(Flow(), X, OTHER)),
    "likelihood_percentile": ({}, lambda: metrics.likelihood_percentile(Flow(), OTHER)),
    "log_likelihood": ({}, lambda: metrics.log_likelihood(Flow(), OTHER)),
    "neighbor_agreement": ({"k": 7}, lambda: metrics.neighbor_agreement(OTHER, TARGET, REFERENCES, LABELS, k=7)),
    "neighbor_mean": ({"k": 4}, lambda: metrics.neighbor_mean(OTHER, REFERENCES, LABELS.float(), k=4)),
    "off_manifold": ({"dimension": 3}, lambda: metrics.off_manifold(Flow(), X, OTHER - X, dimension=3)),
    "oracle_agreement": ({"oracle": "svm"}, lambda: metrics.oracle_agreement(svm(), OTHER, TARGET)),
    "oracle_score": ({"oracle": "other"}, lambda: metrics.oracle_score(of_model("other"), OTHER, TARGET)),
    "reconstruction_share": ({}, lambda: metrics.reconstruction_share(X, OTHER, 0.9 * X)),
    "sparsity": ({"tolerance": 0.1}, lambda: metrics.sparsity(X, OTHER, tolerance=0.1)),
    "ssim": ({}, lambda: metrics.ssim(X, OTHER)),
    "validity": ({"confidence": 0.4}, lambda: metrics.validity(RowClassifier(), OTHER, TARGET, confidence=0.4)),
}
# Of values, of a network that is downloaded, of larger images.
ELSEWHERE = {"oracle_value", "inception_score", "ssim"}


def test_every_registered_metric_is_tried_here_or_below():
    # Whatever else was registered beside those of the package.
    own = {name for name, place in METRICS.items() if place.startswith("captum_dcf.")}
    assert own == set(DIRECTLY) | ELSEWHERE | {"l2_to_class", "l2_latent_to_class"}


@pytest.mark.parametrize("name", sorted(set(DIRECTLY) - ELSEWHERE))
def test_a_metric_of_a_plan_is_the_function_of_the_package(setup, case, name):
    arguments, directly = DIRECTLY[name]
    if name == "oracle_agreement":
        pytest.importorskip("sklearn")
    bound = make_metric(setup, "label", name, arguments)
    function = metrics.load_metric(name)
    assert (bound.better, bound.of) == (function.better, function.of)
    expected = torch.as_tensor(directly())
    torch.testing.assert_close(torch.as_tensor(bound(case)), expected.to(torch.as_tensor(bound(case)).dtype))
    if expected.ndim:
        assert expected.shape == (5,)


def test_the_toys_tell_inputs_from_counterfactuals_and_sources_from_targets(setup, case):
    assert TARGET not in SEEN.tolist() or len(set(SEEN.tolist())) > 1
    wrong = {
        "log_likelihood": metrics.log_likelihood(Flow(), X),
        "im1": metrics.im1(per_class(), OTHER, SEEN, TARGET),
        "neighbor_agreement": metrics.neighbor_agreement(OTHER, SEEN, REFERENCES, LABELS, k=7),
        "cout": metrics.cout(RowClassifier(), X, OTHER, SEEN, TARGET, steps=4),
        "l2_latent_encoded": torch.zeros(5),
        "denoised_source": metrics.denoised_source(RowClassifier(), Darker(0.8), OTHER, TARGET),
    }
    for name, other in wrong.items():
        assert not torch.allclose(make_metric(setup, "label", name, DIRECTLY[name][0])(case), other), name


def test_an_svm_judges_the_counterfactuals(classifier):
    pytest.importorskip("sklearn")
    bright_rows = torch.eye(4)[:3].repeat(10, 1)[:, None, :, None].expand(-1, -1, -1, 4)
    labels = torch.arange(3).repeat(10)
    toys = Setup(classifier, {}, [0.5], ZooOfToys(), lambda: (bright_rows, labels))
    bound = make_metric(toys, "svm", "oracle_agreement", {"oracle": "svm"})
    x, other = bright_rows[:2], bright_rows[2:3].expand(2, -1, -1, -1)
    case = Case(x, labels[:2], reach(TARGET), other, lambda x, goal: other, classifier)
    assert bound(case).tolist() == [1.0, 1.0]


def test_an_estimator_is_fitted_once(setup):
    fits = []
    made = [setup.estimator("svm", lambda x, y: fits.append(len(x)) or object()) for _ in range(2)]
    assert made[0] is made[1]
    assert fits == [40]


def test_distances_to_the_source_class_are_means_over_it(setup, case):
    values = make_metric(setup, "to class", "l2_to_class", {})(case)
    latent = make_metric(setup, "to class", "l2_latent_to_class", {"most": 2})(case)
    for row in range(5):
        real = REFERENCES[SEEN[row] == LABELS]
        distances = (OTHER[row] - real).flatten(1).norm(dim=1)
        torch.testing.assert_close(values[row], distances.mean())
        # The generator is orthogonal.
        torch.testing.assert_close(latent[row], distances[:2].mean(), rtol=1e-4, atol=1e-4)


def test_ssim_of_larger_images(setup, classifier):
    x, other = torch.rand(2, 1, 12, 12), torch.rand(2, 1, 12, 12)
    case = Case(x, torch.zeros(2), reach(0), other, lambda x, goal: x, classifier)
    torch.testing.assert_close(
        make_metric(setup, "ssim", "ssim", {"data_range": 2.0})(case), metrics.ssim(x, other, data_range=2.0)
    )


def test_the_value_of_a_regressor_has_no_target(setup):
    setup.weights.models["regressor"] = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))
    case = Case(X, torch.zeros(5), at_least(2), OTHER, lambda x, goal: x, None)
    bound = make_metric(setup, "value", "oracle_value", {"oracle": "regressor"})
    torch.testing.assert_close(bound(case), metrics.oracle_value(setup.weights.models["regressor"], OTHER))
    with pytest.raises(NotApplicable):
        make_metric(setup, "agreement", "oracle_agreement", {"oracle": "other"})(case)
    with pytest.raises(NotApplicable):
        make_metric(setup, "cout", "cout", {})(case)


def test_what_a_method_does_not_give_does_not_apply(setup, classifier):
    saliency = Case(X, torch.zeros(5), reach(2), SaliencyMap(X, SEEN), lambda x, goal: x, classifier)
    with pytest.raises(NotApplicable):
        make_metric(setup, "l1", "l1", {})(saliency)
    plain = Case(X, torch.zeros(5), reach(2), OTHER, lambda x, goal: x, classifier)
    with pytest.raises(NotApplicable):
        make_metric(setup, "share", "reconstruction_share", {})(plain)
    with pytest.raises(NotApplicable):
        make_metric(setup, "walked", "l2_latent", {})(plain)
    assert make_metric(setup, "deletion", "deletion", {})(saliency).shape == (5,)


@pytest.mark.parametrize("name", CAPTUM)
def test_captums_metrics_have_names_too(setup, case, name):
    assert make_metric(setup, name, name, {"samples": 2})(case).shape == (5,)
    with pytest.raises(ValueError, match=f"settings of '{name}': 'steps'; known are .*samples"):
        make_metric(setup, name, name, {"steps": 2})


def test_a_generator_must_be_named_where_there_are_several(classifier):
    two = Setup(classifier, {"a": Flow(), "b": Flow()}, [0.5], ZooOfToys(), lambda: (REFERENCES, LABELS))
    with pytest.raises(ValueError, match="'likely' is not complete: it needs generator"):
        make_metric(two, "likely", "log_likelihood", {})
    assert make_metric(two, "likely", "log_likelihood", {"generator": "flow"}).judges()[0] is two.weights.load("flow")


def test_a_setting_without_a_default_must_be_given(setup):
    with pytest.raises(ValueError, match="'off' is not complete: it needs dimension"):
        make_metric(setup, "off", "off_manifold", {})
