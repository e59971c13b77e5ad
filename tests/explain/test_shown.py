r"""How a model is shown images: scaled, resized, in colour and standardised, as it expects them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_dcf.explain.shown import Shown, fitted, parse_normalize, resized

RANGE = (0.0, 1.0)


def takes(*shape: int):
    r"""A model of images of one shape only, which gives back what it was shown."""

    def model(x: Tensor) -> Tensor:
        if x.shape[1:] != shape:
            raise RuntimeError(f"wrong shape {tuple(x.shape)}")
        return x.flatten(1)

    return model


def test_pixels_are_scaled_and_standardised():
    images = torch.rand(2, 3, 4, 4) * 2 - 1
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    shown = Shown(lambda x: x, (-1.0, 1.0), normalize=parse_normalize("imagenet"))(images)
    for channel in range(3):
        expected = ((images[:, channel] + 1) / 2 - mean[channel]) / deviation[channel]
        assert torch.allclose(shown[:, channel], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5;0.25", ((0.5,), (0.25,))),
        ("0.1, 0.2,0.3; 1,2,3", ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))),
        ("0;1,2,3", ((0.0,), (1.0, 2.0, 3.0))),
    ],
)
def test_normalize_is_read(text: str, expected: tuple):
    assert parse_normalize(text) == expected


@pytest.mark.parametrize("text", ["", "0.5", "a;b", "0.5;0.5;0.5", "1,2;1", "0;-1", "0;0", "nan;1", "0;inf", "0;"])
def test_normalize_that_is_none(text: str):
    with pytest.raises(ValueError, match=r"imagenet|one or three"):
        parse_normalize(text)


def test_a_model_that_takes_the_images_is_shown_them_as_they_are():
    x = torch.rand(1, 3, 8, 8)
    shown = fitted(takes(3, 8, 8), x, RANGE)
    assert (shown.size, shown.in_colour) == (None, False)
    assert torch.equal(shown(x), x.flatten(1))


def test_grey_is_shown_in_three_equal_channels_to_a_model_of_colour():
    x = torch.rand(1, 1, 8, 8)
    shown = fitted(takes(3, 8, 8), x, RANGE)(x).view(1, 3, 8, 8)
    assert all(torch.equal(channel, x[:, 0]) for channel in shown.unbind(1))


def test_a_model_may_write_into_what_it_is_shown():
    x = torch.rand(1, 1, 8, 8)
    before = x.clone()
    shown = fitted(lambda image: image.add_(1).flatten(1) if image.shape[1] == 3 else image[:, 7], x, RANGE)
    assert shown.in_colour
    shown(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("size", [224, 32, 299])
def test_the_size_is_found_by_asking(size: int):
    assert fitted(takes(3, size, size), torch.rand(1, 3, 8, 8), RANGE).size == (size, size)


def test_the_size_is_as_it_is_said():
    asked = []
    fitted(lambda x: asked.append(tuple(x.shape)) or x.flatten(1), torch.rand(1, 3, 8, 8), RANGE, model_size=20)
    assert asked == [(1, 3, 20, 20)]


def test_a_model_of_grey_images_and_a_generator_of_coloured_ones():
    with pytest.raises(ValueError, match=r"1 channel.*3 channels"):
        fitted(takes(1, 8, 8), torch.rand(1, 3, 8, 8), RANGE)


def test_a_model_that_takes_nothing_says_why():
    def model(x: Tensor) -> Tensor:
        raise RuntimeError("out of\nluck")

    with pytest.raises(ValueError, match=r"1×8×8.*out of luck"):
        fitted(model, torch.rand(1, 1, 8, 8), RANGE)


def test_another_fault_of_the_model_is_no_question_of_size():
    with pytest.raises(ValueError, match=r"test_shown\.py, line \d+: KeyError: 'head'"):
        fitted(lambda x: {}["head"], torch.rand(1, 1, 8, 8), RANGE)


def test_resizing_has_a_gradient_and_keeps_the_mean():
    images = torch.rand(2, 3, 12, 8, requires_grad=True)
    for size in ((6, 4), (24, 16), (4, 24)):
        small = resized(images, size)
        assert small.shape[2:] == size
        assert torch.allclose(small.mean((2, 3)), images.mean((2, 3)), atol=0.03)
        [gradient] = torch.autograd.grad(small.sum(), images)
        # Each pixel counts: nearest neighbours, or bilinear without smoothing, would skip some.
        assert (gradient > 0).all()


def test_the_model_s_modules_are_seen():
    from captum_dcf.attr._modules import modules_of

    model = nn.Flatten()
    assert modules_of(Shown(model)) == [model]
