from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import Rotated, images

from captum_dcf.metrics import im1, im2, reconstruction_share


def off_by(amount):
    r"""An autoencoder that is wrong by ``amount`` in each of the 16 pixels: by 4 · ``amount`` in Euclidean distance."""
    return lambda x: x + amount


def test_im1_by_hand():
    x = images(3)
    autoencoders = {4: off_by(0.5), 9: off_by(0.1)}
    torch.testing.assert_close(im1(autoencoders, x, 9, 4), torch.full((3,), 0.2))
    torch.testing.assert_close(im1(autoencoders, x, 4, 9), torch.full((3,), 5.0))


def test_autoencoders_may_be_a_module_dict():
    x = images(3)
    blur, keep = torch.nn.AvgPool2d(3, 1, 1), torch.nn.Identity()
    expected = im1({4: keep, 9: blur}, x, 9, 4)
    torch.testing.assert_close(im1(torch.nn.ModuleDict({"4": keep, "9": blur}), x, 9, 4), expected)
    with pytest.raises(ValueError, match=r"class 1 has no autoencoder; there are some for the classes \[4, 9\]"):
        im1(torch.nn.ModuleDict({"4": keep, "9": blur}), x, 1, 4)


def test_im2_by_hand():
    x = torch.full((2, 1, 4, 4), 0.5)
    # 4 · |0.3 - 0.1| / (16 · 0.5)
    measured = im2([off_by(0.0), off_by(0.3)], off_by(0.1), x, 1)
    torch.testing.assert_close(measured, torch.full((2,), 0.1))


def test_im2_of_dark_and_bright_pixels():
    x = torch.tensor([0.5, -0.5]).repeat(2, 8).view(2, 1, 4, 4)
    torch.testing.assert_close(im2([off_by(0.3)], off_by(0.1), x, 0), torch.full((2,), 0.1))


def test_each_example_goes_to_the_autoencoder_of_its_class():
    x, autoencoders = images(4), [off_by(0.1), off_by(0.2), off_by(0.4)]
    target, source = torch.tensor([0, 1, 2, 0]), torch.tensor([2, 2, 1, 1])
    together = im1(autoencoders, x, target, source)
    torch.testing.assert_close(together, torch.tensor([0.25, 0.5, 2.0, 0.5]))
    alone = [im1(autoencoders, x[i : i + 1], int(target[i]), int(source[i])) for i in range(4)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_perfect_autoencoders_give_zero_and_not_nan():
    x = images(2)
    assert im1([off_by(0.0)] * 2, x, 0, 1).tolist() == [0.0, 0.0]
    assert im2([off_by(0.0)], off_by(0.0), torch.zeros_like(x), 0).tolist() == [0.0, 0.0]


def test_modules_and_generators_are_autoencoders():
    x = images(2)
    assert im1(nn.ModuleList([nn.Identity(), nn.ReLU()]), x, 0, 1).shape == (2,)
    assert (im1([Rotated(), off_by(1.0)], x, 0, 1) < 1e-5).all()


def test_nothing_carries_a_gradient():
    assert not im1([Rotated(), Rotated()], images(2), 0, 1).requires_grad


@pytest.mark.parametrize("autoencoders", [{4: off_by(0.1)}, [off_by(0.1)] * 5])
def test_class_without_an_autoencoder_is_refused(autoencoders):
    with pytest.raises(ValueError, match=r"class 9 has no autoencoder.*4"):
        im1(autoencoders, images(2), 9, 4)
    with pytest.raises(ValueError, match="class 9 has no autoencoder"):
        im2(autoencoders, off_by(0.0), images(2), torch.tensor([4, 9]))


def test_autoencoder_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="autoencoder of class 0 changes the shape"):
        im1([lambda x: x.flatten(1)], images(2), 0, 0)
    with pytest.raises(ValueError, match="keep the shape"):
        im2([off_by(0.1)], lambda x: x.flatten(1), images(2), 0)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (torch.tensor([0]), ValueError, r"\(2, 1, 4, 4\), target is \(1,\)"),
        (torch.tensor([0.0, 1.0]), TypeError, "integer tensor"),
        (1.0, TypeError, "integer tensor"),
        (True, TypeError, "integer tensor"),
        (-1, ValueError, "at least 0"),
    ],
)
def test_wrong_target_is_refused(target, error, message):
    with pytest.raises(error, match=message):
        im1([off_by(0.1), off_by(0.1)], images(2), target, 0)


def test_reconstruction_share_by_hand():
    x = images(2)
    # From x to the reconstruction 4 · 0.1, from there to x' 4 · 0.3.
    torch.testing.assert_close(reconstruction_share(x, x + 0.2, x - 0.1), torch.full((2,), 0.25))
    torch.testing.assert_close(reconstruction_share(x, x - 0.1, x - 0.1), torch.ones(2))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_share_of_what_is_not_finite_is_nan(value):
    x, others = images(2), images(2, seed=1)
    unfit = others.clone()
    unfit[1, 0, 0, 0] = value
    for share in (reconstruction_share(x, unfit, others), reconstruction_share(x, others, unfit)):
        assert share.isnan().tolist() == [False, True]


def test_exact_reconstructions_have_no_share():
    x = images(2)
    assert reconstruction_share(x, images(2, seed=1), x).tolist() == [0.0, 0.0]
    assert reconstruction_share(x, x, x).tolist() == [0.0, 0.0]
