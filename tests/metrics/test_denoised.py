from __future__ import annotations

import pytest
import torch
from toys import RowClassifier, images

from captum_dcf.metrics import denoised_source, denoised_validity, validity


def rows_only(x):
    r"""An autoencoder whose images have rows of one grey each: what varies within a row is noise to it."""
    return x.median(-1, keepdim=True).values.expand_as(x)


def bright(row, columns=slice(None)):
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, row, columns] = 1.0
    return x


# A whole row that is bright, and one dot that is as bright as three of four rows.
REAL, NOISE = bright(2), bright(2, slice(0, 1)) * 8 + bright(0) * 0.5


def test_a_change_that_the_autoencoder_knows_stays_and_noise_falls_back():
    x = torch.cat((REAL, NOISE))
    assert validity(RowClassifier(), x, 2).tolist() == [1.0, 1.0]
    assert denoised_validity(RowClassifier(), rows_only, x, 2).tolist() == [1.0, 0.0]
    assert denoised_source(RowClassifier(), rows_only, x, 0).tolist() == [0.0, 1.0]


def test_of_an_autoencoder_that_changes_nothing_it_is_the_validity():
    x = images(20)
    for target in range(3):
        expected = validity(RowClassifier(), x, target)
        assert denoised_validity(RowClassifier(), lambda x: x, x, target).tolist() == expected.tolist()


def test_each_image_has_its_target():
    x = torch.cat((bright(0), bright(1), bright(2)))
    assert denoised_validity(RowClassifier(), rows_only, x, torch.tensor([0, 1, 0])).tolist() == [1.0, 1.0, 0.0]


def test_what_is_not_finite_is_neither_valid_nor_back():
    x = REAL * torch.nan
    assert denoised_validity(RowClassifier(), rows_only, x, 2).tolist() == [0.0]
    assert denoised_source(RowClassifier(), rows_only, x, 0).isnan().all()


def test_one_logit_is_read_as_the_caller_says():
    def darker(x):
        return 0.5 - x.mean((1, 2, 3))

    assert denoised_validity(darker, rows_only, REAL, 1, output="binary_logit").tolist() == [1.0]


def test_an_autoencoder_that_changes_the_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(1, 1, 4, 4\) and \(1, 16\)"):
        denoised_validity(RowClassifier(), lambda x: x.flatten(1), REAL, 2)
