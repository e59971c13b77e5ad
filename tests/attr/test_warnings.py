r"""What a call warns of: once, with numbers and reasons, at the line that asked."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from toys import Rotated, images

from captum_dcf import AdversarialExample, CounterfactualWarning, DiffeomorphicCounterfactual, Generator, Status


class Partial(Rotated):
    r"""Cannot represent images whose last pixel is 1, nor decode those whose last pixel is 0."""

    def decode(self, z: Tensor) -> Tensor:
        decoded = super().decode(z)
        last = decoded[:, :, 3:, 3:]
        return torch.where(last > 0.99, decoded.flip(2), torch.where(last < 0.01, torch.nan, decoded))


def test_failures_are_warned_of_once_with_their_number_and_reason(classifier: nn.Module):
    x = images(6)
    x[0, 0, 3, 3], x[1, 0, 3, 3] = 1.0, 0.0
    x[0, 0, 0], x[0, 0, 2], x[2, 0, 1] = 0.9, 0.8, 1.0
    x[2, 0, 0], x[2, 0, 2] = 0.0, 0.0
    method = DiffeomorphicCounterfactual(classifier, Partial())
    result = method.counterfactual(x, target=1, max_steps=1)
    assert result.statuses() == [
        Status.NOT_RECONSTRUCTED,
        Status.NOT_FINITE,
        Status.ALREADY_THERE,
        Status.STEP_LIMIT,
        Status.STEP_LIMIT,
        Status.STEP_LIMIT,
    ]
    for ask in (method.attribute, method.perturb, method):
        with pytest.warns(CounterfactualWarning) as caught:
            ask(x, target=1, max_steps=1)
        assert len(caught) == 1
        message = str(caught[0].message)
        assert message.startswith("no counterfactual was found for 5 of 6 examples")
        for part in ("1 NOT_RECONSTRUCTED", "1 NOT_FINITE", "3 STEP_LIMIT"):
            assert part in message


def test_the_time_limit_is_warned_of(method: DiffeomorphicCounterfactual):
    with pytest.warns(CounterfactualWarning, match=r"2 of 2 .*2 TIME_LIMIT"):
        method.attribute(images(2), target=1, max_seconds=1e-9)


def test_the_warning_points_at_the_line_that_asked(method: DiffeomorphicCounterfactual):
    for ask in (method.attribute, method.perturb):
        with pytest.warns(CounterfactualWarning) as caught:
            ask(images(2), target=1, max_steps=1)
        assert caught[0].filename == __file__


def test_without_failures_there_is_no_warning(method: DiffeomorphicCounterfactual):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.attribute(images(3), target=1)
        method.counterfactual(images(3), target=1, max_steps=1)


def test_internal_batches_are_warned_of_together(method: DiffeomorphicCounterfactual):
    with pytest.warns(CounterfactualWarning, match="4 of 4") as caught:
        method.attribute(images(4), target=1, max_steps=1, internal_batch_size=1)
    assert len(caught) == 1


@pytest.mark.filterwarnings("ignore:no counterfactual was found for 3 of 3 examples")
def test_pixels_beyond_the_range_are_warned_of(classifier: nn.Module, generator: Generator):
    x = images(3)
    beyond = x.clone()
    beyond[0, 0, 3, 3] = 1.2
    for method in (DiffeomorphicCounterfactual(classifier, generator), AdversarialExample(classifier)):
        for ask in (method.attribute, method.perturb, method.counterfactual):
            says = r"from 0\.3\d* to 1\.2, data_range is \(0\.0, 1\.0\)"
            with pytest.warns(CounterfactualWarning, match=says) as caught:
                ask(beyond, target=1, max_steps=1)
            assert {one.filename for one in caught} == {__file__}
    generator.data_range = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DiffeomorphicCounterfactual(classifier, generator).counterfactual(beyond, target=1)
        # So little is rounding.
        generator.data_range = (0.0, 1.0)
        x[0, 0, 3, 3], x[1, 0, 3, 3] = 1.0009, -0.0009
        DiffeomorphicCounterfactual(classifier, generator).counterfactual(x, target=1, max_steps=1)


def test_inputs_of_another_scale_are_warned_of(classifier: nn.Module, generator: Generator):
    x = torch.linspace(0, 255, 16).view(1, 1, 4, 4)
    with pytest.warns(CounterfactualWarning, match=r"reach from 0 to 255, data_range is \(0\.0, 1\.0\)"):
        DiffeomorphicCounterfactual(classifier, generator).counterfactual(x, target=1, max_steps=1)


def test_progress_counts_the_examples_that_have_ended(
    method: DiffeomorphicCounterfactual, capsys: pytest.CaptureFixture[str]
):
    quiet = method.attribute(images(5), target=1, internal_batch_size=2)
    assert capsys.readouterr().err == ""
    shown = method.attribute(images(5), target=1, internal_batch_size=2, show_progress=True)
    last = capsys.readouterr().err.rstrip().split("\r")[-1]
    assert "Diffeomorphic Counterfactual" in last
    assert "5/5" in last
    assert torch.equal(quiet, shown)
