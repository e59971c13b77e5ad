r"""Inputs and generators that do not fit are refused by what was received and what is accepted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import Rotated, RowClassifier, images

from captum_dcf import AdversarialExample, DiffeomorphicCounterfactual, Generator, Pixels
from captum_dcf.generators import AutoencoderGenerator, NormalizingFlowGenerator
from captum_dcf.models.glow import glow

EVERY_WAY = pytest.mark.parametrize("name", ["attribute", "perturb", "counterfactual"])


def spoiled(value: float) -> Tensor:
    x = images(3)
    x[1, 0, 2, 2] = value
    return x


@EVERY_WAY
@pytest.mark.parametrize(
    ("inputs", "error", "says"),
    [
        (images(3).long(), TypeError, "floating point.* received torch.int64"),
        (images(3).to(torch.uint8), TypeError, "floating point.* received torch.uint8"),
        (images(3) > 0.5, TypeError, "floating point.* received torch.bool"),
        (images(3).to(torch.complex64), TypeError, "floating point.* received torch.complex64"),
        (images(3).numpy(), TypeError, "one tensor or a tuple of one tensor, received ndarray"),
        (None, TypeError, "one tensor or a tuple of one tensor, received NoneType"),
        ([images(3)], TypeError, "one tensor or a tuple of one tensor, received list"),
        ((images(3), images(3)), TypeError, "one tensor or a tuple of one tensor, received a tuple of 2"),
        ((), TypeError, "one tensor or a tuple of one tensor, received a tuple of 0"),
        (images(0), ValueError, r"at least one example, received \(0, 1, 4, 4\)"),
        (torch.zeros(3, 1, 0, 4), ValueError, r"\(3, 1, 0, 4\)"),
        (torch.zeros(()), ValueError, r"batch dimension.*\(N, C, H, W\), received \(\)"),
        (torch.zeros(4), ValueError, r"batch dimension.*\(N, C, H, W\), received \(4,\)"),
        (spoiled(torch.nan), ValueError, "finite: example 1 of 3"),
        (spoiled(torch.inf), ValueError, "finite: example 1 of 3"),
        (spoiled(-torch.inf), ValueError, "finite: example 1 of 3"),
    ],
)
def test_wrong_inputs(method: DiffeomorphicCounterfactual, name: str, inputs: Any, error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        getattr(method, name)(inputs, target=1)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", ["sparse", "nested", "meta", "float8"])
def test_c43_tensors_without_ordinary_values(method: DiffeomorphicCounterfactual, kind: str):
    x = images(3)
    made = {
        "sparse": x.to_sparse,
        "nested": lambda: torch.nested.nested_tensor(list(x)),
        "meta": lambda: x.to("meta"),
        "float8": lambda: x.to(torch.float8_e4m3fn),
    }[kind]()
    with pytest.raises(TypeError, match=f"inputs must be .* received .*{kind}"):
        method.attribute(made, target=1)


WRONG_SHAPES = [(3, 1, 5, 5), (3, 3, 4, 4), (3, 4, 4, 1), (1, 4, 4), (3, 1, 4, 8)]


def anything(x: Tensor) -> Tensor:
    return x.flatten(1)


@pytest.mark.parametrize("shape", WRONG_SHAPES)
def test_inputs_that_the_generator_cannot_encode(generator: Generator, shape: tuple[int, ...]):
    method = DiffeomorphicCounterfactual(anything, generator)
    with pytest.raises(ValueError, match="Rotated") as caught:
        method.attribute(torch.rand(shape), target=1)
    assert str(shape[1:])[1:-1] in str(caught.value)


@pytest.mark.parametrize("shape", WRONG_SHAPES)
def test_inputs_of_another_shape_than_the_pixels(shape: tuple[int, ...]):
    method = DiffeomorphicCounterfactual(anything, Pixels((1, 4, 4)))
    with pytest.raises(ValueError, match=r"\(N, 1, 4, 4\)") as caught:
        method.attribute(torch.rand(shape), target=1)
    assert str(shape[1:])[1:-1] in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 3, 28, 28), (2, 1, 32, 32), (2, 1, 27, 27), (2, 28, 28), (2, 784)])
def test_u7_inputs_of_another_shape_than_the_flows(shape: tuple[int, ...]):
    flow = glow((1, 28, 28), [1, 1], [4, 4])
    with torch.no_grad():
        flow.log_prob(torch.rand(4, 1, 28, 28), None)
    method = DiffeomorphicCounterfactual(anything, NormalizingFlowGenerator(flow.eval()))
    with pytest.raises(ValueError, match="NormalizingFlowGenerator") as caught:
        method.attribute(torch.rand(shape), target=1)
    assert str(shape[1:])[1:-1].rstrip(",") in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 1, 27, 27)])
def test_inputs_of_another_shape_than_the_models(shape: tuple[int, ...]):
    method = AdversarialExample(nn.Sequential(nn.Flatten(), nn.Linear(784, 2)))
    with pytest.raises(ValueError, match="forward_func failed on images of shape") as caught:
        method.attribute(torch.rand(shape), target=1)
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_inputs_of_another_precision(generator: Generator, dtype: torch.dtype):
    with pytest.raises(ValueError, match=rf"Rotated cannot encode .*{dtype}.*parameters are torch.float32"):
        DiffeomorphicCounterfactual(anything, generator).attribute(images(3).to(dtype), target=1)
    with pytest.raises(ValueError, match=rf"forward_func failed on .*{dtype}"):
        AdversarialExample(RowClassifier()).attribute(images(3).to(dtype), target=1)


def test_a_generator_that_decodes_to_another_shape(classifier: nn.Module):
    class Cropped(Rotated):
        def decode(self, z: Tensor) -> Tensor:
            return super().decode(z)[..., :3]

    with pytest.raises(ValueError, match=r"Cropped.decode gives images of shape \(1, 4, 3\).*\(1, 4, 4\)"):
        DiffeomorphicCounterfactual(classifier, Cropped()).attribute(images(3), target=1)


def test_a_generator_whose_latents_are_no_rows(classifier: nn.Module):
    class Square(Rotated):
        def encode(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(ValueError, match=r"Square.encode must give \(3, D\), received \(3, 1, 4, 4\)"):
        DiffeomorphicCounterfactual(classifier, Square()).attribute(images(3), target=1)


@pytest.mark.parametrize("cut", [torch.Tensor.detach, lambda decoded: torch.from_numpy(decoded.detach().numpy())])
def test_c27_a_decoder_without_gradient_is_not_the_models_fault(classifier: nn.Module, cut: Any):
    class Cut(Rotated):
        def decode(self, z: Tensor) -> Tensor:
            return cut(super().decode(z))

    with pytest.raises(ValueError, match=r"Cut\.decode gives images that do not depend differentiably on the latents"):
        DiffeomorphicCounterfactual(classifier, Cut()).attribute(images(3), target=1)


class Pair(Generator):
    r"""Like many an encoder of a variational autoencoder: mean and variance."""

    def encode(self, x: Tensor) -> Any:
        return x.flatten(1), x.flatten(1)

    def decode(self, z: Tensor) -> Tensor:
        return z.view(-1, 1, 4, 4)


def test_an_encoder_that_gives_a_pair(classifier: nn.Module):
    with pytest.raises(TypeError, match=r"Pair\.encode must return a tensor, received tuple"):
        DiffeomorphicCounterfactual(classifier, Pair()).attribute(images(3), target=1)


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.5, 0.5), (0.0, float("inf")), (0.0,), "ab", 1.0, (0, 1, 2)])
def test_bounds_between_which_there_is_no_image(classifier: nn.Module, generator: Generator, bounds: Any):
    generator.data_range = bounds
    with pytest.raises(ValueError, match="data_range of Rotated must be None or two finite numbers") as caught:
        DiffeomorphicCounterfactual(classifier, generator).attribute(images(3), target=1)
    assert repr(bounds) in str(caught.value)


@pytest.mark.parametrize("free", [slice(0, 0), torch.tensor([], dtype=torch.int64)])
def test_c27_no_free_coordinate(classifier: nn.Module, generator: Generator, free: slice | Tensor):
    generator.free = free
    with pytest.raises(ValueError, match="Rotated has no free coordinate to search in"):
        DiffeomorphicCounterfactual(classifier, generator).attribute(images(3), target=1)


@pytest.mark.parametrize("length", [0.0, float("inf"), float("nan"), -1.0])
def test_c27_a_typical_length_that_is_none_is_the_generators(classifier: nn.Module, length: float):
    class Odd(Rotated):
        def typical_length(self, z: Tensor) -> Tensor:
            return torch.tensor(length)

    with pytest.raises(ValueError, match=r"Odd\.typical_length must be positive and finite, received .*step_rule="):
        DiffeomorphicCounterfactual(classifier, Odd()).attribute(images(3), target=1)


def test_a_decoder_of_other_latents(classifier: nn.Module):
    encoder, decoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), nn.Linear(4, 16)
    with pytest.raises(ValueError, match=r"AutoencoderGenerator cannot decode latents of shape \(3, 3\)"):
        DiffeomorphicCounterfactual(classifier, AutoencoderGenerator(encoder, decoder)).attribute(images(3), target=1)
