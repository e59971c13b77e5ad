from __future__ import annotations

import inspect
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from captum_dcf import metrics
from captum_dcf.metrics import METRICS, load_metric, metric, register
from captum_dcf.metrics.registry import DATA

# What the docstrings say of each: "lower is better", "higher is better", or neither.
LOWER = {
    "l1",
    "l2_input",
    "l2_latent",
    "l2_latent_encoded",
    "denoised_source",
    "im1",
    "im2",
    "off_manifold",
    "reconstruction_share",
    "deletion",
    "frechet_distance",
}
NEITHER = {"neighbor_mean", "oracle_value"}
OF_SETS = {"frechet_distance", "inception_score"}
JUDGES = {
    "validity": ("classifier",),
    "cout": ("classifier",),
    "deletion": ("classifier",),
    "insertion": ("classifier",),
    "oracle_agreement": ("oracle",),
    "oracle_score": ("oracle",),
    "oracle_value": ("oracle",),
    "l2_latent_encoded": ("generator",),
    "denoised_source": ("classifier", "autoencoder"),
    "denoised_validity": ("classifier", "autoencoder"),
    "log_likelihood": ("generator",),
    "likelihood_percentile": ("generator",),
    "off_manifold": ("generator",),
    "im1": ("autoencoders",),
    "im2": ("autoencoders", "autoencoder"),
    "frechet_distance": ("network",),
    "inception_score": ("network",),
}

# Other rooms may have registered more.
NAMES = [name for name, place in METRICS.items() if place.startswith("captum_dcf.metrics.")]


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("captum_dcf.metrics.registry.METRICS", dict(METRICS))


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_directions_of_every_metric(name: str):
    loaded = load_metric(name)
    assert loaded.__name__ == name
    direction = None if name in NEITHER else "lower" if name in LOWER else "higher"
    assert loaded.better == direction
    assert direction is None or f"{direction} is " in inspect.getdoc(loaded)
    assert loaded.of == ("set" if name in OF_SETS else "example")
    assert loaded.judges == JUDGES.get(name, ())
    parameters = inspect.signature(loaded).parameters
    assert tuple(parameters) == loaded.judges + loaded.data + loaded.settings
    assert set(loaded.data) <= set(DATA)
    for setting in loaded.settings:
        assert parameters[setting].kind is inspect.Parameter.KEYWORD_ONLY
    for given in loaded.judges + loaded.data:
        assert parameters[given].default is inspect.Parameter.empty


def test_every_public_metric_has_a_name():
    public = {name for name in metrics.__all__ if hasattr(getattr(metrics, name), "better")}
    assert public == set(NAMES)


def test_a_metric_is_the_function_it_was():
    @metric(better="higher")
    def brightness(counterfactuals: Tensor, *, scale: float = 1.0) -> Tensor:
        r"""Mean of the pixels."""
        return scale * counterfactuals.flatten(1).mean(1)

    assert brightness.__doc__ == "Mean of the pixels."
    assert brightness(torch.ones(2, 1, 2, 2), scale=3.0).tolist() == [3.0, 3.0]
    assert (brightness.better, brightness.of) == ("higher", "example")
    assert (brightness.judges, brightness.data, brightness.settings) == ((), ("counterfactuals",), ("scale",))


def test_a_metric_of_ones_own_is_loaded_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    register("brightness", "my_metrics:brightness")
    with pytest.raises(ModuleNotFoundError, match="my_metrics"):
        load_metric("brightness")
    module = ModuleType("my_metrics")
    monkeypatch.setitem(sys.modules, "my_metrics", module)
    module.brightness = lambda counterfactuals: counterfactuals
    with pytest.raises(TypeError, match="my_metrics:brightness"):
        load_metric("brightness")
    module.brightness = metric(better=None)(module.brightness)
    assert load_metric("brightness") is module.brightness
    # Twice the same is no mistake: modules are imported again in notebooks.
    register("brightness", "my_metrics:brightness")


@pytest.mark.parametrize("place", ["my_metrics", "my_metrics:", ":brightness", "my metrics:brightness", "a..b:c"])
def test_a_place_of_another_form_is_refused(place: str):
    with pytest.raises(ValueError, match=f"{place!r}"):
        register("brightness", place)


def test_a_name_that_is_taken_and_one_that_is_not_known_are_refused():
    with pytest.raises(ValueError, match=r"'l1'.*captum_dcf\.metrics\.distance:l1"):
        register("l1", "my_metrics:l1")
    with pytest.raises(ValueError, match=r"'l3'.*l1, l2_input"):
        load_metric("l3")


def judge_last(counterfactuals, classifier): ...
def setting_by_position(counterfactuals, scale=1.0): ...
def no_data(classifier, *, scale=1.0): ...
def any_positions(counterfactuals, *others): ...
def any_settings(counterfactuals, **settings): ...
def by_position_only(counterfactuals, /): ...


@pytest.mark.parametrize(
    "function", [judge_last, setting_by_position, no_data, any_positions, any_settings, by_position_only]
)
def test_other_signatures_are_refused(function):
    with pytest.raises(TypeError, match=rf"reference_labels.*received {function.__name__}\("):
        metric(better="higher")(function)


@pytest.mark.parametrize("arguments", [{"better": "more"}, {"better": "lower", "of": "batch"}])
def test_other_directions_are_refused(arguments):
    with pytest.raises(ValueError, match=r"received '(more|batch)'"):
        metric(**arguments)
