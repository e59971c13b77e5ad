from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from captum_dcf import Adam, DiffeomorphicCounterfactual, Pixels, zoo
from captum_dcf.data.helix import helix, helix_distance, helix_sample, helix_tangent
from captum_dcf.data.sources import open_source, read_all
from captum_dcf.geometry import spectrum, tangent_space
from captum_dcf.metrics import validity
from captum_dcf.models.helix import helix_classifier, helix_flow
from captum_dcf.training.recipes import RECIPES
from captum_dcf.zoo.adapters import point_flow_generator


def test_tangent_is_the_derivative():
    z = torch.linspace(-6, 6, 25, dtype=torch.float64)
    difference = (helix(z + 1e-6) - helix(z - 1e-6)) / 2e-6
    torch.testing.assert_close(helix_tangent(z), difference / difference.norm(dim=1, keepdim=True))


def test_parameters_may_be_a_column():
    z = torch.linspace(-6, 6, 25)
    assert torch.equal(helix(z[:, None]), helix(z))
    assert torch.equal(helix_tangent(z[:, None]), helix_tangent(z))


def test_points_of_the_helix_are_at_no_distance():
    assert helix_distance(helix(torch.linspace(-20, 20, 101))).max() < 1e-5


def test_distance_along_the_radius_by_hand():
    # Inwards and a little outwards, the nearest point is the one that was left.
    z = torch.linspace(-5, 5, 11)
    radius = torch.stack((z.sin(), z.cos(), torch.zeros_like(z)), dim=1)
    for length in (-0.9, -0.3, 0.5):
        torch.testing.assert_close(helix_distance(helix(z) + length * radius), torch.full((11,), abs(length)))


def test_distance_is_that_of_scipy():
    from scipy.optimize import brute, fmin

    points = 3 * torch.randn(20, 3, dtype=torch.float64)

    def squared(z, point):
        return float(((helix(torch.tensor([float(np.squeeze(z))], dtype=torch.float64)) - point) ** 2).sum())

    expected = [
        squared(brute(squared, [(float(p[2]) - 8, float(p[2]) + 8)], args=(p,), Ns=200, finish=fmin), p) ** 0.5
        for p in points
    ]
    np.testing.assert_allclose(helix_distance(points), expected, atol=1e-4)


def test_sample_is_on_the_helix_and_labelled_by_the_sign():
    points, classes = helix_sample(1000)
    assert helix_distance(points).max() < 1e-5
    assert torch.equal(classes, (points[:, 2] > 0).long())
    assert points[:, 2].abs().max() < 4
    assert 0.4 < classes.float().mean() < 0.6
    assert torch.equal(helix_sample(1000)[0], points)
    assert not torch.equal(helix_sample(1000, torch.Generator().manual_seed(1))[0], points)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"received \(4, 2\)"):
        helix_distance(torch.zeros(4, 2))
    for function in (helix, helix_tangent):
        with pytest.raises(ValueError, match=r"received \(4, 3\)"):
            function(torch.zeros(4, 3))


def test_flow_is_exact_and_has_a_density():
    generator, x = point_flow_generator(helix_flow(hidden=16)), torch.randn(50, 3)
    torch.testing.assert_close(generator(x), x, rtol=1e-4, atol=1e-4)
    log_det = torch.stack(
        [torch.autograd.functional.jacobian(generator.encode, p[None]).view(3, 3) for p in x]
    ).logdet()
    base = torch.distributions.Normal(0.0, 1.0).log_prob(generator.encode(x)).sum(1)
    torch.testing.assert_close(generator.log_prob(x), base + log_det, rtol=1e-3, atol=1e-3)


def test_architectures_are_the_paper_s():
    widths = [module.out_features for module in helix_flow().modules() if isinstance(module, nn.Linear)]
    assert widths == [256, 256, 3] * 24
    assert [tuple(parameter.shape) for parameter in helix_classifier().parameters()] == [
        (256, 3),
        (256,),
        (1, 256),
        (1,),
    ]


# Of the trainer, about its folder and its workers.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    r"""Both models, smaller and trained for a shorter time than by their recipes."""
    pytest.importorskip("lightning")
    from captum_dcf.training.run import train

    out = tmp_path_factory.mktemp("helix")
    with pytest.MonkeyPatch.context() as patch:
        for name, width, batch_size, epochs, rate in (
            ("helix-flow", 32, 200, 2, 6e-3),
            ("helix-classifier", 64, 250, 2, 2e-3),
        ):
            smaller = replace(
                RECIPES[name], arguments={"hidden": width}, batch_size=batch_size, epochs=epochs, learning_rate=rate
            )
            patch.setitem(RECIPES, name, smaller)
            train(name, None, out, limit=30_000)
    return out


@pytest.fixture(scope="module")
def classifier(folder):
    return zoo.load("helix-classifier", folder)


@pytest.fixture(scope="module")
def generator(folder):
    return zoo.load("helix-flow", folder)


def test_the_card_of_the_flow_says_its_likelihood(folder, generator):
    points, _ = read_all(open_source("helix", None, "test"))
    card = zoo.read_card("helix-flow", folder)
    with torch.no_grad():
        expected = -generator.log_prob(points).mean().item()
    assert card.figures == {"negative_log_likelihood": pytest.approx(expected, abs=1e-3)}
    assert generator.data_range is None
    assert generator.exact


def test_classifier_tells_the_sides_apart(classifier):
    points, classes = helix_sample(1000, torch.Generator().manual_seed(7))
    assert validity(classifier, points, classes, output="binary_logit").mean() > 0.97


def test_leading_singular_vector_is_the_tangent(generator):
    z = torch.linspace(-3.5, 3.5, 100)
    latents = generator.encode(helix(z)).detach()
    leading = tangent_space(generator.decode, latents, dimension=1).squeeze(2)
    degrees = (leading * helix_tangent(z)).sum(1).abs().clamp(max=1).acos().rad2deg()
    assert degrees.median() < 10
    values = spectrum(generator.decode, latents)
    assert (values[:, 0] > 5 * values[:, 1]).float().mean() > 0.9


def test_counterfactuals_stay_by_the_helix_and_adversarial_examples_leave_it(classifier, generator):
    points, classes = helix_sample(100, torch.Generator().manual_seed(7))
    rule = Adam(3e-2)
    in_z = DiffeomorphicCounterfactual(classifier, generator, rule, output="binary_logit")
    pixels = Pixels((3,), data_range=None)
    in_x = DiffeomorphicCounterfactual(classifier, pixels, rule, output="binary_logit")
    found_z = in_z.counterfactual(points, target=1 - classes, confidence=0.9, max_steps=300)
    found_x = in_x.counterfactual(points, target=1 - classes, confidence=0.9, max_steps=300)
    assert found_x.reached.float().mean() > 0.9
    assert helix_distance(found_x.counterfactuals[found_x.reached]).median() > 0.8
    assert found_z.reached.float().mean() > 0.5
    assert helix_distance(found_z.counterfactuals[found_z.reached]).median() < 0.15
