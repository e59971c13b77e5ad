r"""Models as they are: those of three libraries, dicts and tuples, models that want standardised pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import RowClassifier, images

from captum_dcf import (
    AdversarialExample,
    CounterfactualAttribution,
    DiffeomorphicCounterfactual,
    Generator,
    Pixels,
    UnitGradient,
)

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")

Make = Callable[..., CounterfactualAttribution]


def of_torchvision() -> nn.Module:
    from torchvision.models import ShuffleNetV2

    model = ShuffleNetV2([1, 1, 1], [8, 8, 16, 16, 32], num_classes=3).eval()
    # Random features hardly depend on the image: what is the same for all images is taken off.
    with torch.no_grad():
        model.fc.bias -= model(torch.rand(8, 3, 32, 32)).mean(0)
    return model


def of_timm() -> nn.Module:
    timm = pytest.importorskip("timm")
    return timm.create_model("test_resnet", pretrained=False, num_classes=3)


def of_transformers() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        num_labels=3,
        initializer_range=0.3,
    )
    return transformers.ViTForImageClassification(config)


@pytest.mark.parametrize(
    ("model", "logits"),
    [
        (of_torchvision, lambda output: output),
        (of_timm, lambda output: output),
        (of_transformers, lambda output: output.logits),
    ],
    ids=["torchvision", "timm", "transformers"],
)
def test_classifiers_of_other_libraries_are_taken_as_they_are(
    model: Callable[[], nn.Module], logits: Callable[[Any], Tensor]
):
    f = model().eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        runner_up = logits(f(x)).topk(2).indices[:, 1]
    settings = {"confidence": 0.3, "max_steps": 20}
    for method in (
        DiffeomorphicCounterfactual(f, Pixels((3, 32, 32)), UnitGradient(0.5)),
        AdversarialExample(f, step_rule=UnitGradient(0.5)),
    ):
        result = method.counterfactual(x, runner_up, **settings)
        with torch.no_grad():
            p = logits(f(result.counterfactuals)).softmax(1)
        of_target = p.gather(1, runner_up[:, None]).squeeze(1)
        assert torch.equal(result.inputs, x)
        assert result.reached.all()
        assert torch.equal(p.argmax(1), runner_up)
        torch.testing.assert_close(result.end_scores, of_target, rtol=1e-4, atol=1e-5)
    assert all(parameter.requires_grad for parameter in f.parameters())


class Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits, self.features, self.aux_logits = logits, None, -logits


WAYS = {
    "an object": (Output, None),
    "a dict": (lambda logits: {"loss": None, "logits": logits}, None),
    "a tuple": (lambda logits: (logits, logits.flatten()), None),
    "a list": (lambda logits: [logits], None),
    "a name of an object": (lambda logits: Output(-logits), "aux_logits"),
    "a name in a dict": (lambda logits: {"logits": -logits, "scores": logits}, "scores"),
    "an index": (lambda logits: (-logits, logits), 1),
    "an index from the end": (lambda logits: (-logits, logits), -1),
    "a function": (lambda logits: {"deep": [logits]}, lambda output: output["deep"][0]),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_part_of_an_output_that_is_meant(way: str, classifier: nn.Module, generator: Generator):
    wrap, select = WAYS[way]
    expected = DiffeomorphicCounterfactual(classifier, generator).counterfactual(images(3), target=1)
    method = DiffeomorphicCounterfactual(lambda x: wrap(classifier(x)), generator, select=select)
    assert torch.equal(method.perturb(images(3), target=1), expected.counterfactuals)


def test_every_method_selects_and_standardises(
    name: str, make: Make, is_attack: bool, classifier: nn.Module, generator: Generator
):
    if is_attack:
        pytest.skip("its perturbation calls the model by itself")
    mean, deviation = 0.4, 0.5

    def standardising(x: Tensor) -> Tensor:
        return classifier((x - mean) / deviation)

    settings = {"target": [0, 1, 2], "confidence": 0.8}
    expected = make(standardising, generator).counterfactual(images(3), **settings)
    method = make(lambda x: {"scores": classifier(x)}, generator, select="scores", normalize=(mean, deviation))
    result = method.counterfactual(images(3), **settings)
    assert expected.reached.all()
    assert torch.equal(result.status, expected.status)
    torch.testing.assert_close(result.counterfactuals, expected.counterfactuals, rtol=0, atol=1e-4)
    torch.testing.assert_close(result.end_scores, expected.end_scores, rtol=1e-4, atol=1e-4)


def test_means_and_deviations_are_those_of_their_channels():
    mean, deviation = (0.485, 0.456, 0.406), [0.229, 0.224, 0.225]
    seen: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return 5 * x.mean((2, 3))

    x = torch.rand(2, 3, 4, 4)
    AdversarialExample(model, normalize=(mean, deviation)).attribute(x, target=1, max_steps=1, confidence=0.4)
    expected = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(deviation).view(3, 1, 1)
    torch.testing.assert_close(seen[0], expected)
    with pytest.raises(ValueError, match=r"the mean of normalize .* received 3 for inputs of 1 channels"):
        AdversarialExample(RowClassifier(), normalize=(mean, deviation)).attribute(images(2), target=1)


def test_inputs_beyond_the_range_of_standardised_pixels_are_found_in_them(classifier: nn.Module, generator: Generator):
    # Images stay in the range of the generator, whatever the model is shown.
    method = DiffeomorphicCounterfactual(classifier, generator, normalize=(0.5, 0.1))
    result = method.counterfactual(images(3), target=1)
    assert result.reached.all()
    assert 0 <= float(result.counterfactuals.min()) <= float(result.counterfactuals.max()) <= 1


class Subtracting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sub_(0.1).div_(0.5)


def writers() -> dict[str, tuple[nn.Module, nn.Module]]:
    from torchvision.transforms import Normalize

    class Standardised(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - 0.1) / 0.5

    return {
        "ReLU": (nn.ReLU(inplace=True), nn.ReLU()),
        "Normalize": (Normalize((0.1,), (0.5,), inplace=True), Standardised()),
        "sub_ and div_": (Subtracting(), Standardised()),
    }


@pytest.mark.parametrize("writer", ["ReLU", "Normalize", "sub_ and div_"])
@pytest.mark.parametrize("bounds", [(-1.0, 1.0), None])
def test_c1_a_model_may_write_into_its_input(
    name: str, make: Make, generator: Generator, writer: str, bounds: tuple[float, float] | None
):
    generator.data_range = bounds
    writing, twin = (nn.Sequential(part, RowClassifier()).eval() for part in writers()[writer])
    x = 2 * images(3) - 0.8
    before = x.clone()
    settings = {"target": [0, 1, 2], "confidence": 0.6}
    result = make(writing, generator).counterfactual(x, **settings)
    expected = make(twin, generator).counterfactual(x, **settings)
    assert torch.equal(x, before)
    assert torch.equal(result.inputs, x)
    assert result.reached.sum() >= 2
    p = twin(result.counterfactuals).softmax(1)[torch.arange(3), [0, 1, 2]]
    assert torch.equal(p > 0.6, result.reached)
    assert torch.equal(result.status, expected.status)
    torch.testing.assert_close(result.counterfactuals, expected.counterfactuals, rtol=0, atol=1e-4)


class Writing(Generator):
    r"""Encodes and decodes in place, as normflows' Shift does."""

    exact = True

    def encode(self, x: Tensor) -> Tensor:
        return x.sub_(0.5).flatten(1)

    def decode(self, z: Tensor) -> Tensor:
        return z.add_(0.5).view(-1, 1, 4, 4)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), None])
def test_c3_a_generator_may_write_into_what_it_is_given(
    name: str, make: Make, classifier: nn.Module, bounds: tuple[float, float] | None
):
    x, generator = images(3), Writing()
    generator.data_range = bounds
    before = x.clone()
    result = make(classifier, generator).counterfactual(x, target=[0, 1, 2], confidence=0.6)
    assert torch.equal(x, before)
    assert torch.equal(result.inputs, x)
    assert result.reached.all()
    result = result.with_latents(generator)
    torch.testing.assert_close(result.start_latents, (x - 0.5).flatten(1))
    for latents, decoded in (
        (result.start_latents, result.reconstructions),
        (result.end_latents, result.counterfactuals),
    ):
        images_again = (latents + 0.5).view(-1, 1, 4, 4)
        images_again = images_again if bounds is None else images_again.clamp(*bounds)
        torch.testing.assert_close(images_again, decoded, rtol=0, atol=1e-4)
