r"""A wrong argument is told what was received and what is accepted."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import normflows as nf
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from toys import Rotated, RowClassifier, images

from captum_dcf import (
    Adam,
    AtLeast,
    CounterfactualWarning,
    DiffeomorphicCounterfactual,
    Generator,
    LeaveClass,
    Pixels,
)
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
        (images(3).long(), TypeError, "floating point, received torch.int64"),
        (images(3).to(torch.uint8), TypeError, "floating point, received torch.uint8"),
        (images(3) > 0.5, TypeError, "floating point, received torch.bool"),
        (images(3).to(torch.complex64), TypeError, "floating point, received torch.complex64"),
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


WRONG_SHAPES = [(3, 1, 5, 5), (3, 3, 4, 4), (3, 4, 4, 1), (1, 4, 4), (3, 1, 4, 8)]


@pytest.mark.parametrize("shape", WRONG_SHAPES)
def test_inputs_that_the_generator_cannot_encode(method: DiffeomorphicCounterfactual, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="Rotated") as caught:
        method.attribute(torch.rand(shape), target=1)
    assert str(shape[1:])[1:-1] in str(caught.value)


@pytest.mark.parametrize("shape", WRONG_SHAPES)
def test_inputs_of_another_shape_than_the_pixels(shape: tuple[int, ...]):
    method = DiffeomorphicCounterfactual(RowClassifier(), Pixels((1, 4, 4)))
    with pytest.raises(ValueError, match=r"\(N, 1, 4, 4\)") as caught:
        method.attribute(torch.rand(shape), target=1)
    assert str(shape[1:])[1:-1] in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 3, 28, 28), (2, 1, 32, 32), (2, 1, 27, 27), (2, 28, 28), (2, 784)])
def test_inputs_of_another_shape_than_the_flows(shape: tuple[int, ...]):
    flow = glow((1, 28, 28), [1, 1], [4, 4])
    with torch.no_grad():
        flow.log_prob(torch.rand(4, 1, 28, 28), None)
    method = DiffeomorphicCounterfactual(lambda x: x.flatten(1), NormalizingFlowGenerator(flow.eval()))
    with pytest.raises(ValueError, match="NormalizingFlowGenerator") as caught:
        method.attribute(torch.rand(shape), target=1)
    assert str(shape[1:])[1:-1].rstrip(",") in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 1, 27, 27)])
def test_inputs_of_another_shape_than_the_models(shape: tuple[int, ...]):
    method = DiffeomorphicCounterfactual(nn.Sequential(nn.Flatten(), nn.Linear(784, 2)), Pixels(shape[1:]))
    with pytest.raises(ValueError, match="forward_func cannot take images of shape") as caught:
        method.attribute(torch.rand(shape), target=1)
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_inputs_of_another_precision(method: DiffeomorphicCounterfactual, dtype: torch.dtype):
    with pytest.raises(ValueError, match=f"{dtype}.*torch.float32"):
        method.attribute(images(3).to(dtype), target=1)
    in_pixels = DiffeomorphicCounterfactual(RowClassifier(), Pixels((1, 4, 4)))
    with pytest.raises(ValueError, match=f"forward_func cannot take.*{dtype}"):
        in_pixels.attribute(images(3).to(dtype), target=1)


class Output:
    logits = torch.zeros(3, 3)


@pytest.mark.parametrize(
    ("output", "error", "says"),
    [
        (lambda x: (x.flatten(1), x), TypeError, "return a tensor, received tuple.*lambda x: model"),
        (lambda x: [x.flatten(1)], TypeError, "return a tensor, received list"),
        (lambda x: Output(), TypeError, "return a tensor, received Output"),
        (lambda x: x.flatten(1).detach().numpy(), TypeError, "return a tensor, received ndarray"),
        (lambda x: None, TypeError, "return a tensor, received NoneType"),
        (lambda x: x.mean(), ValueError, r"one output per example: \(\) for 3 images"),
        (lambda x: x.flatten(1)[:2], ValueError, r"one output per example: \(2, 16\) for 3 images"),
        (lambda x: x.flatten(1).argmax(1), ValueError, "floating point.*int64"),
        (lambda x: x.flatten(1) > 0.5, ValueError, "floating point.*bool"),
        (lambda x: x.flatten(1).detach(), ValueError, "differentiably"),
        (lambda x: 1 + RowClassifier()(x.detach()), ValueError, "differentiably"),
        (lambda x: torch.from_numpy(x.detach().numpy()).flatten(1), ValueError, "differentiably"),
        (lambda x: x.flatten(1).argmax(1, keepdim=True).float().expand(-1, 2), ValueError, "differentiably"),
        (lambda x: x.flatten(1).mean(1), ValueError, r"\(3,\).*binary_logit"),
        (lambda x: x.mean((1, 2)), ValueError, "class 9 .* 0 to 3"),
        (lambda x: x, ValueError, r"\(3, 1, 4, 4\) needs targets of 3 indices each, received 1"),
    ],
)
def test_outputs_that_cannot_be_searched(generator: Generator, output: Any, error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        DiffeomorphicCounterfactual(output, generator).attribute(images(3), target=9 if "class 9" in says else 1)


def test_a_model_under_no_grad_is_refused(classifier: nn.Module, generator: Generator):
    for context in (torch.no_grad, torch.inference_mode):
        method = DiffeomorphicCounterfactual(context()(lambda x: classifier(x)), generator)
        with pytest.raises(ValueError, match="differentiably"):
            method.attribute(images(3), target=1)


def test_logits_that_are_said_to_be_probabilities(classifier: nn.Module, generator: Generator):
    with pytest.raises(ValueError, match="sum to 1"):
        DiffeomorphicCounterfactual(classifier, generator, output="probabilities").attribute(images(3), target=1)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (nn.BatchNorm2d(1), r"0 \(BatchNorm2d\) uses batch statistics: call .eval\(\)"),
        (nn.Dropout(0.5), r"0 \(Dropout\) is in training mode: call .eval\(\)"),
        (nn.Dropout2d(0.5), r"0 \(Dropout2d\) is in training mode: call .eval\(\)"),
        (nn.InstanceNorm2d(1, track_running_stats=True), r"0 \(InstanceNorm2d\) is in training mode"),
        (nn.utils.spectral_norm(nn.Conv2d(1, 1, 1)), r"0 \(Conv2d\) is in training mode"),
        (spectral_norm(nn.Conv2d(1, 1, 1)), r"_SpectralNorm\) is in training mode"),
        (torch.jit.script(nn.Sequential(nn.BatchNorm2d(1))), r"0.0 \(BatchNorm2d\) uses batch statistics"),
        (torch.jit.script(nn.Sequential(nn.Dropout(0.5))), r"0.0 \(Dropout\) is in training mode"),
    ],
)
def test_a_model_in_training_mode(generator: Generator, layer: nn.Module, says: str):
    model = nn.Sequential(layer, RowClassifier())
    for function in (model, model.forward, nn.DataParallel(model), partial(model), partial(partial(model.forward))):
        with pytest.raises(ValueError, match=says):
            DiffeomorphicCounterfactual(function, generator).attribute(images(3), target=1)
    model.eval()
    assert DiffeomorphicCounterfactual(model, generator).counterfactual(images(3), target=1).reached.all()


def test_batch_statistics_are_refused_in_evaluation_mode_too(generator: Generator):
    model = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), RowClassifier()).eval()
    with pytest.raises(ValueError, match="batch statistics"):
        DiffeomorphicCounterfactual(model, generator).attribute(images(3), target=1)


def test_a_generator_in_training_mode(classifier: nn.Module):
    generator = Rotated()
    generator.norm = nn.BatchNorm1d(16)
    with pytest.raises(ValueError, match=r"Rotated.norm \(BatchNorm1d\) uses batch statistics"):
        DiffeomorphicCounterfactual(classifier, generator.train()).attribute(images(3), target=1)


def test_a_flow_that_has_not_seen_data(classifier: nn.Module):
    # The first batch would set its scales, whoever shows it.
    flow = glow((1, 4, 4), [1], [4]).eval()
    with pytest.raises(ValueError, match=r"ActNorm.*has not seen data"):
        DiffeomorphicCounterfactual(classifier, NormalizingFlowGenerator(flow)).attribute(images(3), target=1)
    assert not any(p.data_dep_init_done for p in flow.modules() if isinstance(p, nf.flows.ActNorm))


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


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"confidence": 1.0}, ValueError, "between 0 and 1, received 1.0"),
        ({"confidence": 0}, ValueError, "between 0 and 1, received 0"),
        ({"confidence": -0.5}, ValueError, "between 0 and 1, received -0.5"),
        ({"confidence": float("nan")}, ValueError, "between 0 and 1, received nan"),
        ({"confidence": "high"}, TypeError, "confidence.*str"),
        ({"max_steps": 0}, ValueError, "max_steps must be at least 1, received 0"),
        ({"max_steps": 2.0}, TypeError, "max_steps must be an int, received float"),
        ({"max_steps": True}, TypeError, "max_steps must be an int, received bool"),
        ({"internal_batch_size": 0}, ValueError, "internal_batch_size must be at least 1, received 0"),
        ({"internal_batch_size": -3}, ValueError, "internal_batch_size must be at least 1, received -3"),
        ({"internal_batch_size": 1.5}, TypeError, "internal_batch_size must be an int.*received float"),
        ({"goal": "class 9"}, TypeError, "goal must be a captum_dcf Goal, received str"),
        ({"goal": AtLeast}, TypeError, "goal must be a captum_dcf Goal"),
    ],
)
def test_wrong_knobs(method: DiffeomorphicCounterfactual, arguments: dict[str, Any], error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        method.attribute(images(3), target=1, **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((None, Rotated()), TypeError, "forward_func.*NoneType"),
        ((RowClassifier(), RowClassifier()), TypeError, "captum_dcf Generator, received RowClassifier"),
        ((RowClassifier(), Rotated), TypeError, "captum_dcf Generator"),
        ((RowClassifier(), Rotated(), 0.05), TypeError, "captum_dcf StepRule, received float"),
        ((RowClassifier(), Rotated(), Adam), TypeError, "captum_dcf StepRule"),
        ((RowClassifier(), Rotated(), None, "logit"), ValueError, "binary_logit.*received 'logit'"),
    ],
)
def test_what_a_method_cannot_be_made_of(arguments: tuple[Any, ...], error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        DiffeomorphicCounterfactual(*arguments)


def test_a_target_of_a_model_with_one_value(generator: Generator):
    method = DiffeomorphicCounterfactual(lambda x: x.flatten(1).mean(1), generator)
    with pytest.raises(ValueError, match=r"shape \(3,\) is one value per example: leave the target out"):
        method.attribute(images(3), target=0, goal=AtLeast(0.5))


class Pair(Generator):
    """Like many an encoder of a variational autoencoder: mean and variance."""

    def encode(self, x: Tensor) -> Any:
        return x.flatten(1), x.flatten(1)

    def decode(self, z: Tensor) -> Tensor:
        return z.view(-1, 1, 4, 4)


def test_an_encoder_that_gives_a_pair(classifier: nn.Module):
    with pytest.raises(TypeError, match=r"Pair\.encode must return a tensor, received tuple"):
        DiffeomorphicCounterfactual(classifier, Pair()).attribute(images(3), target=1)


def test_data_bounds_between_which_there_is_no_image(classifier: nn.Module, generator: Generator):
    for bounds in ((0.0, float("inf")), (1.0, 0.0), (0.0, 0.0), (0.0, 0.5, 1.0), 1.0, "01"):
        generator.data_range = bounds
        with pytest.raises(ValueError, match=r"data_range of Rotated must be None or two finite numbers.*received"):
            DiffeomorphicCounterfactual(classifier, generator).attribute(images(3), target=1)


@pytest.mark.parametrize("part", [nn.RReLU(), nn.GRU(4, 4, num_layers=2, dropout=0.5)])
def test_a_model_that_draws_random_numbers(generator: Generator, part: nn.Module):
    model = RowClassifier().eval()
    model.part = part.train()
    with pytest.raises(ValueError, match=rf"part \({type(part).__name__}\) is in training mode"):
        DiffeomorphicCounterfactual(model, generator).attribute(images(3), target=1)


def test_inputs_of_another_scale_are_named(classifier: nn.Module):
    flow = NormalizingFlowGenerator(glow([1, 4, 4], [1], [4]).eval())
    for part in flow.modules():
        if hasattr(part, "data_dep_init_done"):
            part.data_dep_init_done.fill_(1.0)
    with pytest.warns(CounterfactualWarning, match=r"reach from 0 to 255, the generator's data_range is \(0.0, 1.0\)"):
        DiffeomorphicCounterfactual(classifier, flow).attribute(torch.linspace(0, 255, 16).view(1, 1, 4, 4), target=1)


def test_inputs_beyond_the_range_are_warned_of_even_if_all_are_found(classifier: nn.Module, generator: Generator):
    method = DiffeomorphicCounterfactual(classifier, generator)
    beyond = images(3)
    beyond[0, 0, 3, 3] = 1.2
    with pytest.warns(
        CounterfactualWarning, match=r"reach from 0\.3\d* to 1.2, the generator's data_range is \(0.0, 1.0\)"
    ):
        assert method.counterfactual(beyond, target=1).reached.all()
    generator.data_range = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.counterfactual(beyond, target=1)


def test_a_model_made_in_inference_mode(generator: Generator):
    with torch.inference_mode():
        model = RowClassifier().eval()
    with pytest.raises(ValueError, match=r"RowClassifier has parameters without gradients: make it outside of"):
        DiffeomorphicCounterfactual(model, generator).attribute(images(3), target=1)
    assert all(parameter.requires_grad for parameter in generator.parameters())


def test_a_class_goal_needs_no_target(classifier: nn.Module, generator: Generator):
    with pytest.raises(ValueError, match="LeaveClass names a class among all: leave target= away"):
        DiffeomorphicCounterfactual(classifier, generator).attribute(images(3), target=1, goal=LeaveClass(0))


def test_a_decoder_of_other_latents(classifier: nn.Module):
    encoder, decoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), nn.Linear(4, 16)
    with pytest.raises(ValueError, match=r"AutoencoderGenerator cannot decode latents of shape \(3, 3\)"):
        DiffeomorphicCounterfactual(classifier, AutoencoderGenerator(encoder, decoder)).attribute(images(3), target=1)


class ConvBatchNorm(nn.Module):
    r"""A block that is named like what is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class MultiheadAttention(nn.Module):
    r"""A user's own, in which a module is named like a number of torch's."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(share)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x)


def test_modules_are_told_by_what_they_are_not_by_their_names(generator: Generator):
    accepted = (ConvBatchNorm().eval(), torch.jit.script(ConvBatchNorm().eval()), MultiheadAttention(0.0).train())
    for part in accepted:
        method = DiffeomorphicCounterfactual(nn.Sequential(part, RowClassifier()), generator)
        assert method.counterfactual(images(3), target=1).reached.all()
    for part, says in (
        (ConvBatchNorm(), r"0.norm \(BatchNorm2d\) uses batch statistics"),
        (torch.jit.script(ConvBatchNorm()), r"0.norm \(BatchNorm2d\) uses batch statistics"),
        (MultiheadAttention(0.5), r"0.dropout \(Dropout\) is in training mode"),
        (torch.jit.script(nn.Sequential(nn.InstanceNorm2d(1, track_running_stats=True))), "InstanceNorm2d"),
    ):
        with pytest.raises(ValueError, match=says):
            DiffeomorphicCounterfactual(nn.Sequential(part, RowClassifier()), generator).attribute(images(3), target=1)
