r"""The support vector machine that judges counterfactuals."""

from __future__ import annotations

import sys

import pytest
import torch

pytest.importorskip("sklearn")

from captum_dcf.training.oracle import fit_svm_oracle


def test_two_kinds_of_images_are_told_apart_by_a_machine_of_the_documented_strength():
    labels = torch.arange(40) % 2
    images = 0.1 * torch.rand(40, 1, 4, 4) + labels[:, None, None, None]
    oracle = fit_svm_oracle(images, labels)
    assert (torch.from_numpy(oracle.predict(images.flatten(1).numpy())) == labels).all()
    assert oracle.C == 0.01
    # The stronger the regularisation, the smaller the weights.
    assert abs(fit_svm_oracle(images, labels, strength=1e-4).coef_).max() < abs(oracle.coef_).max()


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(ImportError, match=r"captum_dcf\[metrics\]"):
        fit_svm_oracle(torch.rand(4, 1, 2, 2), torch.arange(4))


@pytest.mark.parametrize(
    ("labels", "received"), [(torch.zeros(3), "received 3 for 4"), (torch.full((4,), 7), r"received \[7\]")]
)
def test_labels_that_do_not_fit_are_refused(labels: torch.Tensor, received: str):
    with pytest.raises(ValueError, match=received):
        fit_svm_oracle(torch.rand(4, 1, 2, 2), labels)
