from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_dcf.metrics import neighbor, neighbor_agreement, neighbor_mean


def test_shares_are_those_of_scikit_learn():
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    references, labels, values = torch.rand(200, 1, 4, 4), torch.randint(0, 3, (200,)), torch.randn(200)
    x, target = torch.rand(17, 1, 4, 4), torch.randint(0, 3, (17,))
    flat = references.flatten(1).numpy()
    shares = KNeighborsClassifier(7).fit(flat, labels.numpy()).predict_proba(x.flatten(1).numpy())
    measured = neighbor_agreement(x, target, references, labels, k=7)
    np.testing.assert_allclose(measured, shares[np.arange(17), target.numpy()], rtol=1e-6)
    means = KNeighborsRegressor(3).fit(flat, values.numpy()).predict(x.flatten(1).numpy())
    np.testing.assert_allclose(neighbor_mean(x, references, values), means, rtol=1e-5)


def test_features_far_from_the_origin_keep_their_neighbours():
    x = torch.rand(200, 1, 4, 4) + 1000
    assert (neighbor_agreement(x, torch.arange(200), x, torch.arange(200), k=1) == 1).all()


def test_small_portions_give_the_same(monkeypatch):
    references, labels, x = torch.rand(50, 3), torch.randint(0, 3, (50,)), torch.rand(9, 3)
    at_once = neighbor_agreement(x, 1, references, labels)
    monkeypatch.setattr(neighbor, "_DISTANCES_AT_ONCE", 100)
    torch.testing.assert_close(neighbor_agreement(x, 1, references, labels), at_once)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_references_that_are_not_finite_are_refused(value):
    # Their centre, and with it every distance, would be NaN.
    references = torch.rand(30, 1, 4, 4)
    references[0, 0, 1, 2] = value
    with pytest.raises(ValueError, match="1 of 30"):
        neighbor_agreement(torch.rand(2, 1, 4, 4), 0, references, torch.zeros(30, dtype=torch.long))
    with pytest.raises(ValueError, match="1 of 30"):
        neighbor_mean(torch.rand(2, 1, 4, 4), references, torch.zeros(30))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_image_that_is_not_finite_has_no_neighbours_and_leaves_the_others_theirs(value):
    x, references, labels = torch.rand(3, 1, 4, 4), torch.rand(30, 1, 4, 4), torch.randint(0, 2, (30,))
    agreement, mean = neighbor_agreement(x, 1, references, labels), neighbor_mean(x, references, labels.float())
    x[1, 0, 0, 0] = agreement[1] = mean[1] = torch.nan
    x[1, 0, 0, 0] = value
    torch.testing.assert_close(neighbor_agreement(x, 1, references, labels), agreement, equal_nan=True)
    torch.testing.assert_close(neighbor_mean(x, references, labels.float()), mean, equal_nan=True)


def test_whole_values_have_a_mean_of_their_own():
    assert neighbor_mean(torch.zeros(1, 1), torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([1, 2, 7]), k=2) == 1.5


def test_empty_set_large_k_and_other_shapes_are_refused():
    x, references, labels = torch.rand(2, 1, 4, 4), torch.rand(5, 1, 4, 4), torch.zeros(5, dtype=torch.long)
    with pytest.raises(ValueError, match="reference set is empty"):
        neighbor_agreement(x, 0, references[:0], labels[:0])
    with pytest.raises(ValueError, match="size of the reference set, 5, received 6"):
        neighbor_agreement(x, 0, references, labels, k=6)
    with pytest.raises(ValueError, match="received 0"):
        neighbor_mean(x, references, labels, k=0)
    with pytest.raises(ValueError, match=r"\(2, 1, 4, 4\) and \(5, 16\)"):
        neighbor_mean(x, references.flatten(1), labels)
    with pytest.raises(ValueError, match=r"one label or value each.*\(5, 1, 4, 4\), these \(4,\)"):
        neighbor_mean(x, references, labels[:4])
