r"""What the names of methods in a plan make, on tiny images."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.resources import files

import pytest
import torch
from torch.nn import functional as F
from toys import Rotated, RowClassifier, images

from captum_dcf import Counterfactual, DiffeomorphicCounterfactual, ReachClass
from captum_dcf.benchmark.catalog import COUNTERFACTUALS, make_methods
from captum_dcf.benchmark.setup import Setup
from captum_dcf.generators import Support
from captum_dcf.search import Adam, AtLeast, LeaveClass

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

X = images(4)
GOAL = ReachClass(2, 0.8)


class Unbounded(Rotated):
    data_range = None


class Models:
    def __init__(self):
        self.autoencoder = Rotated().eval()

    def load(self, name):
        assert name == "ae"
        return self.autoencoder


def setup_of(generator=None, confidences=(0.8,)):
    generator = (generator or Rotated()).eval()
    references = images(30, seed=3)
    return Setup(
        RowClassifier().eval(), {"toy": generator}, confidences, Models(), lambda: (references, torch.zeros(30))
    )


def made(name, setup=None, **arguments):
    [method] = make_methods(setup or setup_of(), "label", name, arguments)
    return method


def explained(name, setup=None, goal=GOAL, **arguments):
    return made(name, setup, **arguments).explain(X.clone(), goal)


SMALL = {
    "NaturalCounterfactual": {"samples": 20, "max_samples": 100},
    "PrototypeCounterfactual": {"autoencoder": "ae", "max_steps": 20},
    "ContrastiveCounterfactual": {"autoencoder": "ae", "outer_steps": 2, "max_steps": 20},
}


@pytest.mark.parametrize("name", COUNTERFACTUALS)
def test_every_counterfactual_method_can_be_named(name):
    result = explained(name, **SMALL.get(name, {}))
    assert isinstance(result, Counterfactual)
    assert torch.equal(result.inputs, X)
    assert (result.steps > 0).any()


@pytest.mark.parametrize(("name", "radius"), [("PGD", 0.3), ("FGSM", 0.3)])
def test_an_attack_goes_as_far_as_it_says(name, radius):
    # In the middle of the range of pixels, so that no bound is in the way.
    change = explained(name).attributions.abs()
    assert change.max() == pytest.approx(radius, abs=1e-5)


def test_arguments_of_an_attack():
    assert explained("FGSM", epsilon=0.1).attributions.abs().max() == pytest.approx(0.1, abs=1e-5)
    pgd = explained("PGD", radius=0.2, step_size=0.05, steps=2).attributions.abs().max()
    assert pgd == pytest.approx(0.1, abs=1e-5)
    assert explained("PGD", radius=0.2, step_size=0.15, steps=2).attributions.abs().max() == pytest.approx(
        0.2, abs=1e-5
    )


@pytest.mark.parametrize("name", ["PGD", "FGSM"])
def test_an_attack_stays_within_the_range_of_pixels_while_it_walks(name):
    far = {"epsilon": 2.0} if name == "FGSM" else {"radius": 2.0, "step_size": 0.5, "steps": 8}
    attack = made(name, **far).explain.args[0].perturbation
    bounded = attack.perturb(X.clone(), target=torch.full((4,), 2), targeted=True, **_settings(name, far))
    assert (bounded.min(), bounded.max()) == (0.0, 1.0)
    attack = made(name, setup_of(Unbounded()), **far).explain.args[0].perturbation
    free = attack.perturb(X.clone(), target=torch.full((4,), 2), targeted=True, **_settings(name, far))
    assert free.min() < -0.5
    assert free.max() > 1.5


def _settings(name, arguments):
    if name == "FGSM":
        return arguments
    return {"radius": arguments["radius"], "step_size": arguments["step_size"], "step_num": arguments["steps"]}


@pytest.mark.parametrize("name", ["PGD", "FGSM"])
def test_an_attack_has_a_loss_for_each_example(name):
    attack = made(name).explain.args[0].perturbation
    loss = getattr(attack, "fgsm", attack).loss_func
    output, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(loss(output, target), -F.log_softmax(output, 1)[torch.arange(4), target])


def test_adam_is_a_learning_rate():
    result = explained("DiffeomorphicCounterfactual", adam=0.02)
    method = DiffeomorphicCounterfactual(RowClassifier().eval(), Rotated().eval(), step_rule=Adam(0.02))
    expected = method.counterfactual(X, goal=GOAL)
    assert torch.equal(result.steps, expected.steps)
    torch.testing.assert_close(result.counterfactuals, expected.counterfactuals)
    assert not torch.equal(result.steps, explained("DiffeomorphicCounterfactual").steps)


def test_refine_and_most_steps_are_arguments_of_the_call():
    coarse, fine = explained("DiffeomorphicCounterfactual"), explained("DiffeomorphicCounterfactual", refine=True)
    assert fine.reached.all()
    assert (fine.end_scores < coarse.end_scores).all()
    assert explained("DiffeomorphicCounterfactual", max_steps=1).steps.max() == 1


def test_the_size_of_inner_batches_is_an_argument_of_the_call():
    sizes = []
    setup = setup_of()
    setup.model.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    whole = explained("DiffeomorphicCounterfactual", setup)
    assert max(sizes) == 4
    sizes.clear()
    parts = explained("DiffeomorphicCounterfactual", setup, internal_batch_size=2)
    # All inputs are looked at together, searched are two at a time.
    assert sizes.count(4) <= 1
    torch.testing.assert_close(parts.counterfactuals, whole.counterfactuals)


def test_a_class_to_leave(classifier):
    seen = classifier(X).argmax(1)
    result = explained("DiffeomorphicCounterfactual", goal=LeaveClass(seen, 0.6))
    assert (classifier(result.counterfactuals).argmax(1) != seen).all()


def test_originals_are_returned_as_they_are():
    assert torch.equal(explained("Original"), X)
    with pytest.raises(ValueError, match="'label': 'steps'; known are none"):
        made("Original", steps=3)


def with_references(references, labels):
    return replace(setup_of(), references=lambda: (references, labels))


def test_the_nearest_real_image_is_labelled_and_called_the_target():
    bright = torch.eye(4)[:, None, :, None].expand(-1, -1, -1, 4)
    # The nearest of all is of another label, the next is of the label and called something else.
    references = torch.cat((X[:1] + 0.4 * bright[2], X[:1], 0.9 * bright[2:3], bright[2:3]))
    nearest = made("NearestReal", with_references(references, torch.tensor([0, 2, 2, 2])))
    found = nearest.explain(X.clone(), GOAL)
    distances = (X[:, None] - references[2:]).flatten(2).norm(dim=2)
    torch.testing.assert_close(found, references[2:][distances.argmin(1)])
    assert (RowClassifier()(found).softmax(1)[:, 2] > 0.8).all()
    with pytest.raises(ValueError, match="none of the 4"):
        nearest.explain(X.clone(), ReachClass(1, 0.8))


def test_the_nearest_real_image_of_each_goal():
    references = torch.cat((images(20, seed=7), torch.eye(4)[:3, None, :, None].expand(-1, -1, -1, 4)))
    labels = RowClassifier()(references).argmax(1)
    nearest = made("NearestReal", with_references(references, labels))
    targets = torch.tensor([0, 1, 2, 0])
    assert torch.equal(nearest.explain(X.clone(), ReachClass(targets, 0.7)).amax(3).argmax(2).flatten(), targets)
    left = nearest.explain(X.clone(), LeaveClass(targets, 0.7))
    assert (RowClassifier()(left).argmax(1) != targets).all()


def test_the_nearest_real_image_of_a_value():
    references = images(20, seed=7)
    setup = replace(with_references(references, torch.zeros(20)), confidences=[None], model=lambda x: x.mean((1, 2, 3)))
    least = references.mean((1, 2, 3)).sort().values[-3]
    found = made("NearestReal", setup).explain(X.clone(), AtLeast(least.expand(4)))
    fitting = references[references.mean((1, 2, 3)) >= least]
    assert len(fitting) == 3
    torch.testing.assert_close(found, fitting[(X[:, None] - fitting).flatten(2).norm(dim=2).argmin(1)])


def test_every_confidence_is_a_method():
    methods = make_methods(setup_of(confidences=[0.5, 0.9]), "label", "Revise", {})
    assert [method.key for method in methods] == [("label", "toy", 0.5), ("label", "toy", 0.9)]


def test_the_support_floor_is_an_argument_of_the_call():
    generator = Rotated().eval()
    generator.support = Support("latent_length", (-2.0, -1.0))
    method = {"method": "DiffeomorphicCounterfactual", "arguments": {"min_percentile": 50}}
    [asked] = make_methods(setup_of(generator), "ours", **method)
    assert asked.explain(X, GOAL).about["settings"]["min_percentile"] == 50


@pytest.mark.parametrize(
    "plan", sorted(files("captum_dcf.benchmark").joinpath("plans").iterdir()), ids=lambda p: p.name
)
def test_the_papers_search_has_no_support_floor(plan):
    methods = tomllib.loads(plan.read_text(encoding="utf-8")).get("methods", {}).values()
    papers = [one for one in methods if one.get("method") == "DiffeomorphicCounterfactual" and "adam" in one]
    assert all(one["min_percentile"] == 0 for one in papers)
