from __future__ import annotations

import pytest
import torch
from toys import images

from captum_dcf.metrics import cout, deletion, insertion


def first_pixel_decides(x):
    r"""Class 1 is certain where the first pixel is 1, class 0 where it is 0; logits."""
    first = x.flatten(1)[:, 0]
    return torch.stack((1 - first, first), dim=1).clamp(1e-30).log()


def mean_decides(x):
    r"""The probability of class 1 is the mean of the image; logits."""
    mean = x.flatten(1).mean(1)
    return torch.stack((1 - mean, mean), dim=1).clamp(1e-30).log()


@pytest.fixture
def black():
    return torch.zeros(2, 1, 2, 2)


@pytest.fixture
def white():
    return torch.ones(2, 1, 2, 2)


def test_areas_by_hand(black, white):
    # The deciding pixel enters in the first or in the last of four portions: the curve rises within it.
    early = torch.tensor([4.0, 3.0, 2.0, 1.0]).view(1, 1, 2, 2).expand(2, -1, -1, -1)
    assert insertion(first_pixel_decides, white, early, 1, steps=4).tolist() == [0.875] * 2
    assert insertion(first_pixel_decides, white, early.flip(2, 3), 1, steps=4).tolist() == [0.125] * 2
    assert deletion(first_pixel_decides, white, early, 1, steps=4).tolist() == [0.125] * 2
    assert deletion(first_pixel_decides, white, early.flip(2, 3), 1, steps=4).tolist() == [0.875] * 2


def test_magnitude_orders_the_pixels(white):
    early = torch.tensor([-4.0, 3.0, 2.0, 1.0]).view(1, 1, 2, 2).expand(2, -1, -1, -1)
    assert insertion(first_pixel_decides, white, early, 1, steps=4).tolist() == [0.875] * 2
    assert insertion(first_pixel_decides, white, early.clamp(min=0), 1, steps=4).tolist() == [0.125] * 2


def test_channels_of_opposite_sign_do_not_cancel():
    # Of two pixels the first has channels 1 and -1, the second 0.5 and 0.
    attributions = torch.tensor([[1.0, 0.5], [-1.0, 0.0]]).view(1, 2, 1, 2)
    area = insertion(first_pixel_decides, torch.ones(1, 2, 1, 2), attributions, 1, steps=2)
    assert area.tolist() == [0.75]


def test_equal_attributions_keep_the_order_of_the_image():
    seen = []

    def watch(x):
        seen.append(x.flatten(1).clone())
        return mean_decides(x)

    insertion(watch, torch.ones(1, 1, 32, 32), torch.ones(1, 1, 32, 32), 1, steps=4)
    for step, image in enumerate(seen):
        assert image[0].tolist() == [1.0] * (256 * step) + [0.0] * (1024 - 256 * step)


def test_attributions_that_are_nan_have_no_area(black, white):
    attributions = torch.rand(2, 1, 2, 2)
    expected = insertion(mean_decides, white, attributions, 1)
    attributions[1, 0, 0, 0] = torch.nan
    for area in (
        insertion(mean_decides, white, attributions, 1),
        deletion(mean_decides, white, attributions, 1),
        cout(lambda x: mean_decides(x.nan_to_num()), black, attributions, 1, 0),
    ):
        assert area.isnan().tolist() == [False, True]
    torch.testing.assert_close(insertion(mean_decides, white, attributions, 1)[0], expected[0])


def test_kinds_of_output_have_the_same_areas():
    x, changed = images(3), images(3, seed=1)

    def logit(x):
        return 4 * x.flatten(1).mean(1) - 2

    def probabilities(x):
        return torch.stack((-logit(x), logit(x)), dim=1).sigmoid()

    for function, arguments in ((cout, (x, changed, 1, 0)), (deletion, (x, changed, 1)), (insertion, (x, changed, 1))):
        expected = function(lambda x: probabilities(x).log(), *arguments)
        torch.testing.assert_close(function(logit, *arguments, output="binary_logit"), expected)
        torch.testing.assert_close(function(probabilities, *arguments, output="probabilities"), expected)


def test_order_does_not_matter_to_a_model_that_counts(white):
    for steps in (1, 3, 10):
        area = insertion(mean_decides, white, images(2)[:, :, :2, :2], 1, steps=steps)
        torch.testing.assert_close(area, torch.full((2,), 0.5), atol=0.05, rtol=0)


def test_cout_by_hand(black, white):
    # What changes most enters first.
    changed = torch.tensor([1.0, 0.3, 0.2, 0.1]).view(1, 1, 2, 2).expand(2, -1, -1, -1)
    torch.testing.assert_close(cout(first_pixel_decides, black, changed, 1, 0, steps=4), torch.full((2,), 0.75))
    torch.testing.assert_close(cout(first_pixel_decides, black, changed, 0, 1, steps=4), torch.full((2,), -0.75))


def test_cout_of_no_change_is_the_difference_of_probabilities(black):
    torch.testing.assert_close(cout(first_pixel_decides, black, black, 1, 0), torch.full((2,), -1.0))


def test_examples_are_independent(classifier):
    x, changed = images(4), images(4, seed=1)
    target, source = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 0, 2])
    together = cout(classifier, x, changed, target, source, steps=5)
    for i in range(4):
        alone = cout(classifier, x[i : i + 1], changed[i : i + 1], int(target[i]), int(source[i]), steps=5)
        torch.testing.assert_close(together[i : i + 1], alone)


def test_channels_of_a_pixel_enter_together():
    seen = []

    def watch(x):
        seen.append(x.clone())
        return mean_decides(x)

    insertion(watch, torch.ones(1, 3, 2, 2), torch.rand(1, 1, 2, 2), 1, steps=4)
    assert [int(x.sum()) for x in seen] == [0, 3, 6, 9, 12]


def test_baselines_are_numbers_or_images(white):
    attributions = torch.rand(2, 1, 2, 2)
    by_number = deletion(mean_decides, white, attributions, 1, baselines=0.5)
    by_image = deletion(mean_decides, white, attributions, 1, baselines=torch.full((1, 2, 2), 0.5))
    torch.testing.assert_close(by_number, by_image)
    assert (by_number > 0.5).all()
    with pytest.raises(ValueError, match=r"\(3, 3\) and \(2, 1, 2, 2\)"):
        deletion(mean_decides, white, attributions, 1, baselines=torch.zeros(3, 3))


def test_further_arguments_reach_the_model(white):
    def times(x, factor):
        return factor * mean_decides(x)

    expected = insertion(mean_decides, white, white, 1)
    torch.testing.assert_close(insertion(times, white, white, 1, additional_forward_args=1.0), expected)
    assert (insertion(times, white, white, 1, additional_forward_args=(0.0,)) == 0.5).all()


def test_bad_input_is_refused(black, white):
    with pytest.raises(ValueError, match=r"\(2, 1, 3, 3\) and \(2, 1, 2, 2\)"):
        deletion(mean_decides, white, torch.zeros(2, 1, 3, 3), 1)
    with pytest.raises(ValueError, match=r"\(2, 1, 2, 2\) and \(1, 1, 2, 2\)"):
        cout(mean_decides, black, white[:1], 1, 0)
    with pytest.raises(ValueError, match="steps"):
        insertion(mean_decides, white, white, 1, steps=0)
    with pytest.raises(ValueError, match="received class 2"):
        insertion(mean_decides, white, white, 2)
