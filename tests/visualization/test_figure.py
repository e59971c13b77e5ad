from __future__ import annotations

from dataclasses import fields, replace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot

from captum_dcf import DiffeomorphicCounterfactual, Pixels, Status
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
    with pytest.raises(TypeError, match="'a' must be a Counterfactual, received int"):
        counterfactual_figure({"a": 3})


def panels(figure):
    return [axis for axis in figure.axes if axis.images and axis.get_label() != "<colorbar>"]


@pytest.mark.parametrize("rows", [[1, 3], (1, 3), torch.tensor([1, 3]), np.array([1, 3]), range(1, 4, 2)], ids=str)
def test_rows_may_be_any_numbers(results, rows):
    drawn = panels(counterfactual_figure(results["weak"], rows=rows))
    expected = results["weak"].inputs[[1, 3]].permute(0, 2, 3, 1)
    assert np.allclose(np.stack([axis.images[0].get_array() for axis in drawn[::4]]), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "error", "says"),
    [
        ([0, 4], ValueError, "from 0 to 3, received .*4"),
        ([-1], ValueError, "from 0 to 3, received .*-1"),
        (torch.tensor([9]), ValueError, "from 0 to 3, received .*9"),
        (2, TypeError, "received 2"),
        ([True, False, True, False], TypeError, "received .*True"),
        (torch.tensor([True, False, True, True]), TypeError, "received .*True"),
        ([0.5], TypeError, "received .*0.5"),
    ],
    ids=str,
)
def test_rows_that_are_none_are_refused(results, rows, error, says):
    with pytest.raises(error, match=says):
        counterfactual_figure(results, rows=rows)


def test_every_row_needs_a_label(results):
    with pytest.raises(ValueError, match="received 1 for 2 rows"):
        counterfactual_figure(results, rows=[0, 1], row_labels=["first"])


def test_names_and_labels_are_text_as_it_is(results, tmp_path):
    name, label = "a$b_{$", "$x_{$"
    figure = counterfactual_figure({name: results["weak"], 3: results["strong"]}, rows=[0], row_labels=[label])
    figure.savefig(tmp_path / "figure.png")
    drawn = panels(figure)
    assert (drawn[0].get_ylabel(), drawn[2].get_title(), drawn[4].get_title()) == (label, f"x'\n{name}", "x'\n3")


def test_a_long_label_is_cut(results):
    figure = counterfactual_figure(results, rows=[0], row_labels=[249 * "a"])
    lines = panels(figure)[0].get_ylabel().splitlines()
    assert len(lines) == 3
    assert lines[-1].endswith("…")


def test_images_without_bounds_are_drawn_from_the_least_to_the_greatest_value(results):
    weak = results["weak"]
    wide = replace(weak, inputs=6 * weak.inputs - 3, counterfactuals=6 * weak.counterfactuals - 3)
    everything = torch.stack((wide.inputs, wide.reconstructions, wide.counterfactuals))[:, :1]
    first = panels(counterfactual_figure(wide, rows=[0], data_range=None))[0].images[0].get_array()
    least, greatest = everything.min(), everything.max()
    expected = (wide.inputs[0].permute(1, 2, 0) - least) / (greatest - least)
    assert np.allclose(first, expected, atol=1e-6)
    grey = replace(
        wide, **{name: getattr(wide, name)[:, :1] for name in ("inputs", "reconstructions", "counterfactuals")}
    )
    everything = torch.stack((grey.inputs, grey.reconstructions, grey.counterfactuals))[:, :1]
    drawn = panels(counterfactual_figure(grey, rows=[0], data_range=None))[0].images[0]
    assert drawn.get_clim() == pytest.approx((float(everything.min()), float(everything.max())))


def test_colours_beyond_the_range_are_those_at_its_ends(results, caplog):
    bright = replace(results["weak"], inputs=3 * results["weak"].inputs - 1)
    drawn = panels(counterfactual_figure(bright, rows=[0]))[0].images[0].get_array()
    assert np.allclose(drawn, bright.inputs[0].permute(1, 2, 0).clamp(0, 1), atol=1e-6)
    assert not caplog.records  # Matplotlib would clip them too, but complains of it


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
    figure = counterfactual_figure(same, rows=[0])
    drawn = [axis.images[0] for axis in panels(figure) if axis.images[0].get_cmap().name == "RdBu_r"]
    assert {image.get_clim() for image in drawn} == {(-1, 1)}
    assert not any(np.asarray(image.get_array()).any() for image in drawn)


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


def test_a_notebook_draws_it_without_pyplot(results):
    assert counterfactual_figure(results)._repr_png_().startswith(b"\x89PNG")


def labels_below(figure, column):
    return [axis.get_xlabel() for axis in panels(figure)[column::4]]


def test_below_stand_names_scores_percentiles_and_overshoot(results):
    extra = {"start_percentiles": torch.full((4,), 41.2), "end_percentiles": torch.full((4,), 7.0)}
    extra |= {"start_log_probs": torch.zeros(4), "overshoot": torch.tensor([0.2, 0.01, 0.0, 0.0])}
    named = with_extra(results["weak"], extra, {"score": "P(not $blond)", "class_names": ["a", "b", "not $blond"]})
    figure = counterfactual_figure(named, rows=[0, 1])
    start, end = labels_below(figure, 0)[0], labels_below(figure, 2)[0]
    assert f"P(not $blond) {named.start_scores[0]:.3f}" in start.replace("\n", " ")
    assert f"P(not $blond) {named.end_scores[0]:.3f}" in end.replace("\n", " ")
    assert "41" in start
    assert "7" in end
    assert "0.20 beyond" in end
    assert "beyond" not in labels_below(figure, 2)[1]
    figure.canvas.draw()  # "$" is no formula


def test_values_stand_below_in_their_unit(results):
    named = with_extra(results["weak"], {}, {"score": "nuclei"})
    figure = counterfactual_figure(named, rows=[2], scores=[(4.5, 12.0)])
    assert labels_below(figure, 0) == ["4.5 nuclei"]
    assert labels_below(figure, 2)[0].startswith("12 nuclei")


@pytest.mark.parametrize("names", [["weak"], ["weak", "strong"]])
def test_scores_are_one_pair_a_row_of_one_result(results, names):
    with pytest.raises(ValueError, match="one pair per row of one result"):
        counterfactual_figure({name: results[name] for name in names}, rows=[0, 1], scores=[(0.0, 1.0)] * len(names))


def test_why_a_search_failed_stands_below(results):
    status = torch.full((4,), int(Status.NOT_RECONSTRUCTED))
    failed = replace(results["weak"], status=status, reached=torch.zeros(4, dtype=torch.bool))
    assert "not reconstructed" in labels_below(counterfactual_figure(failed, rows=[0]), 2)[0].replace("\n", " ")


def with_extra(result, extra, about):
    known = {one.name for one in fields(result)}
    result = replace(result, about={**result.about, **about}, **{key: extra[key] for key in extra if key in known})
    for name in set(extra) - known:
        object.__setattr__(result, name, extra[name])
    return result
