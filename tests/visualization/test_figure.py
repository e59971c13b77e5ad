from __future__ import annotations

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot

from captum_dcf import DiffeomorphicCounterfactual, Pixels
from captum_dcf.visualization import counterfactual_figure


@pytest.fixture
def results():
    torch.manual_seed(0)
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 6 * 6, 3))
    method = DiffeomorphicCounterfactual(classifier, Pixels((3, 6, 6)))
    inputs = torch.rand(4, 3, 6, 6)
    return {
        "weak": method.counterfactual(inputs, target=2, confidence=0.4),
        "strong": method.counterfactual(inputs, target=2, confidence=0.6, max_steps=20),
    }


def test_a_row_has_input_reconstruction_and_two_panels_a_method(results):
    figure = counterfactual_figure(results, rows=[0, 3], row_labels=["first", "last"])
    panels = [axis for axis in figure.axes if axis.images and axis.get_label() != "<colorbar>"]
    assert len(panels) == 2 * (2 + 2 * 2)
    assert {axis.get_ylabel() for axis in panels} >= {"first", "last"}


def test_all_differences_share_one_symmetric_scale_that_holds_them_all(results):
    figure = counterfactual_figure(results, rows=[0, 1, 2, 3])
    drawn = [axis.images[0] for axis in figure.axes if axis.images and axis.images[0].get_cmap().name == "RdBu_r"]
    limits = {image.get_clim() for image in drawn}
    assert len(limits) == 1
    [(low, high)] = limits
    assert low == -high
    largest = max(float(result.attributions.abs().max()) for result in results.values())
    assert high == pytest.approx(largest)


def test_a_change_of_colour_is_seen(results):
    # Red goes up and blue goes down by as much: together nothing would be left.
    change = torch.zeros(4, 3, 6, 6)
    change[:, 0, 2, 3], change[:, 2, 2, 3], change[:, 1, 5, 5] = 0.4, -0.3, -0.2
    recoloured = replace(results["weak"], counterfactuals=results["weak"].inputs + change)
    figure = counterfactual_figure({"recoloured": recoloured}, rows=[1])
    [drawn] = [axis.images[0] for axis in figure.axes if axis.images and axis.images[0].get_cmap().name == "RdBu_r"]
    shown = np.asarray(drawn.get_array())
    assert (shown[2, 3], shown[5, 5]) == pytest.approx((0.4, -0.2))
    assert np.abs(shown).sum() == pytest.approx(0.6, abs=1e-4)


def test_a_single_result_is_drawn_with_its_first_rows(results):
    figure = counterfactual_figure(results["weak"])
    panels = [axis for axis in figure.axes if axis.images and axis.get_label() != "<colorbar>"]
    assert len(panels) == 4 * 4
    assert [axis.get_title() for axis in panels[:4]] == ["x", "reconstruction", "x'", "x' − x"]


def test_what_is_no_result_is_refused():
    with pytest.raises(TypeError, match="a Counterfactual or several by name, received list"):
        counterfactual_figure([1, 2])


def test_half_precision_is_drawn_and_no_row_is_refused(results):
    tensors = {name: value for name, value in vars(results["weak"]).items() if torch.is_tensor(value)}
    half = replace(
        results["weak"], **{name: value.bfloat16() for name, value in tensors.items() if value.is_floating_point()}
    )
    counterfactual_figure({"half": half}, rows=[0])
    with pytest.raises(ValueError, match="at least one row"):
        counterfactual_figure(results, rows=[])


def test_what_is_drawn_is_what_was_found(results):
    figure = counterfactual_figure(results, rows=[2])
    drawn = [axis.images[0].get_array() for axis in figure.axes if axis.images and axis.get_label() != "<colorbar>"]
    expected = results["strong"].counterfactuals[2].permute(1, 2, 0).numpy()
    assert np.allclose(drawn[4], expected, atol=1e-6)


def test_a_map_without_any_change_is_drawn(results):
    same = {name: type(part)(**{**vars(part), "counterfactuals": part.inputs}) for name, part in results.items()}
    counterfactual_figure(same, rows=[0]).savefig("/dev/null", format="png")


def test_no_global_state_of_matplotlib_is_touched(results):
    before = dict(matplotlib.rcParams), pyplot.get_fignums()
    counterfactual_figure(results, rows=[0])
    assert (dict(matplotlib.rcParams), pyplot.get_fignums()) == before


def test_results_of_different_images_are_refused(results):
    other = {name: replace(part, inputs=part.inputs + 0.1) for name, part in list(results.items())[:1]}
    with pytest.raises(ValueError, match="results of different images"):
        counterfactual_figure({**results, "other": next(iter(other.values()))}, rows=[0])


def test_bad_input_is_named(results):
    with pytest.raises(ValueError, match="received none"):
        counterfactual_figure({}, rows=[0])
    flat = results["weak"]
    flat = type(flat)(**{**vars(flat), "inputs": flat.inputs.flatten(1)})
    with pytest.raises(ValueError, match=r"\(4, 108\)"):
        counterfactual_figure({"flat": flat}, rows=[0])
