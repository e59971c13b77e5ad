r"""What holds for whatever data a metric is given: types, empty sets, what is no batch of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import Rotated, RowClassifier, images

from captum_dcf.generators import Support
from captum_dcf.metrics import METRICS, load_metric
from captum_dcf.metrics import l1 as l1_distance


class Density(Rotated):
    support = Support("log_prob", (-100.0, -1.0, 0.0))

    def log_prob(self, x):
        return -0.5 * self.encode(x).square().sum(1)


def as_float(module):
    r"""A module of float32, for images of every type."""
    return lambda x: module(x.float())


JUDGES = {
    "classifier": as_float(RowClassifier()),
    "oracle": as_float(RowClassifier()),
    "generator": Density(),
    "autoencoders": [lambda x: 0.5 * x, lambda x: x + 0.1, lambda x: 0.9 * x],
    "autoencoder": lambda x: x,
}
# All dimensions: those of a rotation have equal singular values.
SETTINGS = {"off_manifold": {"dimension": 16}}
LARGE = {"ssim"}
# Other rooms may have registered more.
OF_PACKAGE = [name for name, place in METRICS.items() if place.startswith("captum_dcf.metrics.")]
# A regressor is another judge than the classifiers here.
OF_EXAMPLES = [name for name in OF_PACKAGE if load_metric(name).of == "example" and name != "oracle_value"]


def value_of(name, count, dtype=torch.float32, generator_dtype=torch.float32):
    function = load_metric(name)
    shape = (1, 12, 12) if name in LARGE else (1, 4, 4)

    def some(seed):
        if name in LARGE:
            return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))
        return images(max(count, 1), seed)[:count]

    data = {
        "inputs": some(0).to(dtype),
        "counterfactuals": some(1).to(dtype),
        "reconstructions": some(2).to(dtype),
        "attributions": some(3).to(dtype),
        "target": 0,
        "source": 1,
        "references": images(12, seed=4).to(dtype),
        "reference_labels": torch.arange(12) % 3,
        "start_latents": some(5).to(dtype).flatten(1),
        "end_latents": some(6).to(dtype).flatten(1),
    }
    judges = {**JUDGES, "generator": Density().to(generator_dtype)}
    given = [judges[one] for one in function.judges] + [data[one] for one in function.data]
    return function(*given, **SETTINGS.get(name, {}))


@pytest.mark.parametrize("name", OF_EXAMPLES)
def test_no_example_has_no_value(name):
    values = value_of(name, 0)
    assert values.shape == (0,)
    assert values.is_floating_point()


@pytest.mark.parametrize("name", OF_EXAMPLES)
def test_values_are_those_of_the_widest_type(name):
    single, double = value_of(name, 3), value_of(name, 3, torch.float64, torch.float64)
    assert single.dtype == torch.float32
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-4)
    # A generator takes the type of its own parameters.
    if "generator" not in load_metric(name).judges:
        half = value_of(name, 3, torch.float16)
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, single, rtol=2e-2, atol=2e-2)


def test_the_sum_over_a_large_image_in_half_precision_is_finite():
    x = torch.zeros(2, 3, 224, 224, dtype=torch.float16)
    torch.testing.assert_close(l1_distance(x, x + 1), torch.full((2,), 3.0 * 224 * 224))


def test_perfect_autoencoders_of_halves_give_zero():
    x = images(2).half()
    assert load_metric("im1")([lambda x: x] * 2, x, 0, 1).tolist() == [0.0, 0.0]


def test_types_may_differ():
    x, references, labels = images(3), images(12, seed=4), torch.arange(12) % 3
    agreement = load_metric("neighbor_agreement")
    torch.testing.assert_close(
        agreement(x.double(), 1, references, labels), agreement(x, 1, references, labels).double()
    )
    torch.testing.assert_close(l1_distance(x.half(), x), torch.zeros(3), rtol=0, atol=1e-2)
    im1 = load_metric("im1")
    doubled = im1([lambda x: 0.5 * x.double(), lambda x: x + 0.1], x, 0, 1)
    torch.testing.assert_close(doubled, im1([lambda x: 0.5 * x, lambda x: x + 0.1], x, 0, 1))


@pytest.mark.parametrize("name", OF_EXAMPLES)
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (np.zeros((3, 1, 4, 4)), TypeError, "received ndarray"),
        (torch.zeros(3), ValueError, r"received \(3,\)"),
        (torch.zeros(3, 1, 4, 4, dtype=torch.uint8), TypeError, r"received torch\.uint8"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(name, wrong, error, message):
    function = load_metric(name)
    data = {one: wrong for one in function.data}
    data |= {"target": 0, "source": 1, "reference_labels": torch.zeros(3, dtype=torch.long)}
    given = [JUDGES[one] for one in function.judges] + [data[one] for one in function.data]
    with pytest.raises(error, match=message):
        function(*given, **SETTINGS.get(name, {}))
