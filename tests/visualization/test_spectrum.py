from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_dcf.visualization import spectrum_figure


def test_the_mean_of_the_squares_is_drawn_on_two_logarithmic_axes():
    values = torch.tensor([[3.0, 1.0, 0.1], [1.0, 0.5, 0.3]])
    [axis] = spectrum_figure({"flow": values}).axes
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    ranks, eigenvalues = axis.lines[0].get_data()
    assert list(ranks) == [1, 2, 3]
    assert np.allclose(eigenvalues, [5.0, 0.625, 0.05])


def test_what_cannot_be_drawn_is_named():
    with pytest.raises(ValueError, match="received none"):
        spectrum_figure({})
    with pytest.raises(ValueError, match=r"\(3,\)"):
        spectrum_figure({"flow": torch.ones(3)})
    with pytest.raises(TypeError, match="received Tensor"):
        spectrum_figure(torch.ones(2, 3))
    with pytest.raises(TypeError, match="tensors by name"):
        spectrum_figure({"flow": [1.0]})


def test_names_are_text_as_it_is(tmp_path):
    values = torch.ones(2, 3)
    figure = spectrum_figure({"a$b_{$": values, "_hidden": values, 3: values})
    figure.savefig(tmp_path / "spectrum.png")
    [axis] = figure.axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["a$b_{$", "_hidden", "3"]


def test_half_precision_is_drawn():
    [axis] = spectrum_figure({"flow": torch.tensor([[300.0, 2.0]], dtype=torch.float16)}).axes
    assert np.allclose(axis.lines[0].get_ydata(), [9e4, 4])
    spectrum_figure({"flow": torch.ones(2, 3, dtype=torch.bfloat16)})
