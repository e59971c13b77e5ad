r"""What holds for whatever a metric asks."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from toys import Rotated, RowClassifier, images

from captum_dcf import metrics
from captum_dcf.generators import Support
from captum_dcf.metrics.registry import load_metric

TARGET, SOURCE = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
DATA = {
    "inputs": images(3),
    "counterfactuals": images(3, seed=1),
    "attributions": images(3, seed=2),
    "target": TARGET,
    "source": SOURCE,
    "references": images(4, seed=3),
}
CLASSIFIED = ["validity", "oracle_agreement", "oracle_score", "cout", "deletion", "insertion", "frechet_distance"]
RECONSTRUCTED = ["im1", "im2"]
DENOISED = ["denoised_validity", "denoised_source"]
ENCODED = ["l2_latent_encoded", "off_manifold", "log_likelihood", "likelihood_percentile"]


SETTINGS = {"off_manifold": {"dimension": 3}}


class Density(Rotated):
    support = Support("log_prob", (-100.0, 0.0))

    def log_prob(self, x):
        return -0.5 * self.encode(x).square().sum(1)


class DensityWith(Density):
    r"""Its coordinates are those of a module of its own."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def encode(self, x):
        return super().encode(self.module(x))


class InPlace(nn.Module):
    r"""Writes into its input, as many networks do."""

    def forward(self, x):
        return x.mul_(0.5)


def judged(name, module):
    r"""A metric of the images that pass through ``module`` first."""
    function = load_metric(name)
    data = [DATA[one].clone() for one in function.data]
    if name in CLASSIFIED:
        judge = nn.Sequential(module, nn.Flatten(), nn.Linear(16, 3, bias=False))
        nn.init.constant_(judge[2].weight, 0.1)
        judge.train(module.training)
        judges = [judge]
    elif name == "im1":
        judges = [[module] * 3]
    elif name == "im2":
        judges = [[module] * 3, nn.Identity()]
    elif name in DENOISED:
        judges = [RowClassifier(), module]
    else:
        judges = [DensityWith(module).train(module.training)]
    settings = SETTINGS.get(name, {})
    return function(*judges, *data, **settings), dict(zip(function.data, data))


@pytest.mark.parametrize("name", CLASSIFIED + RECONSTRUCTED + DENOISED + ENCODED)
def test_a_judge_that_writes_into_its_input_changes_nothing(name):
    class Halved(nn.Module):
        def forward(self, x):
            return 0.5 * x

    expected, _ = judged(name, Halved().eval())
    measured, data = judged(name, InPlace().eval())
    torch.testing.assert_close(torch.as_tensor(measured), torch.as_tensor(expected))
    for given, value in data.items():
        assert torch.equal(value, DATA[given])


@pytest.mark.parametrize("name", CLASSIFIED + RECONSTRUCTED + DENOISED + ENCODED)
@pytest.mark.parametrize("module", [nn.Dropout(), nn.Dropout2d(), nn.BatchNorm2d(1), nn.RReLU()])
def test_a_judge_in_training_mode_is_refused(name, module):
    state = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(ValueError, match=rf"{type(module).__name__}\) is in training mode.*\.eval\(\)"):
        judged(name, module.train())
    for key, value in module.state_dict().items():
        assert torch.equal(value, state[key])
    judged(name, module.eval())


def test_the_other_parts_that_chance_or_the_batch_decides_about():
    x = images(3)
    for part in (nn.InstanceNorm2d(1, track_running_stats=True), nn.LSTM(4, 4, 2, dropout=0.5)):
        with pytest.raises(ValueError, match="is in training mode"):
            metrics.validity(nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.ModuleList([part])), x, 0)
    with pytest.raises(ValueError, match="uses batch statistics"):
        metrics.validity(nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten()).eval(), x, 0)


def test_a_judge_in_training_mode_that_does_not_depend_on_it_is_asked():
    harmless = nn.Sequential(nn.Flatten(), nn.Dropout(0.0), nn.Linear(16, 3), nn.LayerNorm(3)).train()
    assert metrics.validity(harmless, images(3), 0).shape == (3,)
    assert metrics.im1([nn.InstanceNorm2d(1).train()] * 2, images(3), 0, 1).shape == (3,)


@pytest.mark.parametrize("name", RECONSTRUCTED + ENCODED)
def test_a_generator_that_has_not_seen_data_is_refused_and_sees_none(name):
    class Untrained(Density):
        data_dep_init_done = False

        def encode(self, x):
            self.data_dep_init_done = True
            return super().encode(x)

    function, generator = load_metric(name), Untrained().eval()
    judges = {"generator": generator, "autoencoders": [generator] * 3, "autoencoder": generator}
    with pytest.raises(ValueError, match="has not seen data"):
        function(
            *(judges[one] for one in function.judges), *(DATA[one] for one in function.data), **SETTINGS.get(name, {})
        )
    assert not generator.data_dep_init_done


def test_methods_and_partials_of_a_module_are_seen_through():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout()

        def scaled(self, x, factor):
            return factor * self.drop(x).flatten(1)

    with pytest.raises(ValueError, match=r"Classifier\.drop \(Dropout\)"):
        metrics.validity(partial(Classifier().scaled, factor=2.0), images(3), 0)
    assert metrics.validity(partial(Classifier().eval().scaled, factor=2.0), images(3), 0).shape == (3,)


def test_what_is_no_tensor_is_refused_with_its_type():
    with pytest.raises(TypeError, match="received dict"):
        metrics.validity(lambda x: {"logits": x.flatten(1)}, images(3), 0)
