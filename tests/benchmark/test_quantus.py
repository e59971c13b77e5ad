from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from toys import RowClassifier, images

from captum_dcf import DiffeomorphicCounterfactual
from captum_dcf.benchmark import quantus_explain

X = images(3)


@pytest.fixture
def method(generator):
    return partial(DiffeomorphicCounterfactual, generator=generator)


def test_as_quantus_calls_it_the_class_asked_about_is_left(method, classifier):
    seen = classifier(X).argmax(1)
    # Quantus hands over arrays, by these names, and tells the device.
    explain = quantus_explain(method, confidence=0.7)
    attributions = explain(model=classifier, inputs=X.numpy(), targets=seen.numpy(), device="cpu")
    assert isinstance(attributions, np.ndarray)
    assert attributions.shape == X.shape
    after = classifier(X + torch.from_numpy(attributions)).softmax(1)
    assert (after.argmax(1) != seen).all()
    assert (after[torch.arange(3), seen] < 0.3 + 1e-4).all()


def test_a_class_to_reach(method, classifier, generator):
    explain = quantus_explain(method, target=2, confidence=0.7)
    expected = DiffeomorphicCounterfactual(classifier, generator).attribute(X, 2, confidence=0.7)
    np.testing.assert_allclose(explain(classifier, X.numpy(), np.zeros(3, dtype=int)), expected.numpy(), atol=1e-6)


def test_arguments_of_the_metric_override_those_given_before(method, classifier):
    explain = quantus_explain(method, target=2, confidence=0.5)
    surer = explain(classifier, X.numpy(), np.zeros(3), confidence=0.9)
    assert (classifier(X + torch.from_numpy(surer)).softmax(1)[:, 2] > 0.9 - 1e-4).all()


def test_another_model_is_asked_where_quantus_alters_it(method, classifier):
    other = RowClassifier().double().eval()
    with torch.no_grad():
        other.linear.weight.copy_(classifier.linear.weight.flip(0))
    explain = quantus_explain(Saliency, abs=False)
    ours, others = (explain(model, X.numpy(), np.zeros(3, dtype=int)) for model in (classifier, other))
    np.testing.assert_allclose(ours[0].reshape(16), classifier.linear.weight[0].detach())
    np.testing.assert_allclose(others[0].reshape(16), classifier.linear.weight[2].detach())


def test_something_else_is_refused():
    with pytest.raises(TypeError, match="received str"):
        quantus_explain("Saliency")


def test_in_an_evaluation_by_quantus(method, classifier):
    quantus = pytest.importorskip("quantus")
    metric = quantus.Sparseness(abs=True, disable_warnings=True)
    seen = classifier(X).argmax(1).numpy()
    explain = quantus_explain(method)
    scores = metric(model=classifier, x_batch=X.numpy(), y_batch=seen, a_batch=None, explain_func=explain, device="cpu")
    assert len(scores) == 3
    assert np.isfinite(scores).all()
