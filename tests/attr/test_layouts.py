r"""Inputs of any shape, layout and precision, and callers in any mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import Rotated, images

from captum_dcf import DiffeomorphicCounterfactual, Generator, Near, Pixels


@pytest.mark.parametrize("shape", [(3, 2), (3, 5, 2), (3, 2, 3, 4), (2, 1, 2, 3, 2)])
def test_inputs_of_any_number_of_dimensions(shape: tuple[int, ...]):
    method = DiffeomorphicCounterfactual(lambda x: 200 * x.flatten(1)[:, :2], Pixels(shape[1:], None))
    attributions = method.attribute(torch.zeros(shape), target=1)
    assert attributions.shape == shape


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed", "expanded", "sliced"])
def test_attributions_are_contiguous_whatever_the_layout_of_the_inputs(
    method: DiffeomorphicCounterfactual, layout: str
):
    x = images(2)
    laid_out = {
        "contiguous": x,
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.mT.contiguous().mT,
        "expanded": x[:1].expand(2, 1, 4, 4),
        "sliced": torch.cat((x, x), dim=3)[..., :4],
    }[layout]
    attributions = method.attribute(laid_out, target=1)
    assert attributions.is_contiguous()
    expected = method.attribute(laid_out.clone(memory_format=torch.contiguous_format), target=1)
    torch.testing.assert_close(attributions, expected)
    assert method.perturb(laid_out, target=1).is_contiguous()


def test_channels_last_colour_images_give_contiguous_attributions():
    x = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    method = DiffeomorphicCounterfactual(lambda x: 200 * x.mean((2, 3)), Pixels((3, 4, 4)))
    attributions = method.attribute(x, target=1)
    assert attributions.shape == x.shape
    assert attributions.is_contiguous()
    attributions.view(2, -1)


def test_double_precision_stays_double(classifier: nn.Module, generator: Generator):
    method = DiffeomorphicCounterfactual(classifier.double(), generator.double())
    result = method.counterfactual(images(3).double(), target=1, refine=True, keep_path=True)
    assert result.reached.all()
    floats = [one for one in vars(result).values() if isinstance(one, Tensor) and one.is_floating_point()]
    assert len(floats) == 10
    assert {one.dtype for one in floats} == {torch.float64}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_c13_a_generator_of_another_precision_gives_images_like_the_inputs(
    make: Callable[..., Any], name: str, is_attack: bool, classifier: nn.Module, dtype: torch.dtype
):
    class Other(Rotated):
        def decode(self, z: Tensor) -> Tensor:
            return super().decode(z).to(dtype)

    if is_attack or name in ("adversarial", "contrastive", "prototype"):
        pytest.skip("decodes nothing")
    x = images(3)
    result = make(classifier, Other()).counterfactual(x, target=1, confidence=0.8)
    assert result.reached.all()
    assert result.counterfactuals.dtype == result.attributions.dtype == torch.float32
    # What is returned is what was judged, also in the last bit.
    assert (classifier(result.counterfactuals).softmax(1)[:, 1] > 0.8).all()


def test_a_model_in_half_precision_is_read_as_it_is(classifier: nn.Module, generator: Generator):
    method = DiffeomorphicCounterfactual(lambda x: classifier(x).bfloat16(), generator)
    attributions = method.attribute(images(3), target=1)
    assert attributions.dtype == torch.float32
    assert method.counterfactual(images(3), target=1).reached.all()


def test_autocast_around_the_call_does_not_break_the_search(method: DiffeomorphicCounterfactual):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = method.counterfactual(images(3), target=1)
    assert result.counterfactuals.dtype == torch.float32
    assert result.reached.all()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_mode_of_the_caller_does_not_matter(method: DiffeomorphicCounterfactual, context: Callable[[], Any]):
    def shifted(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return scale * method.forward_func(x) * torch.ones_like(shift[:, None]) + shift[:, None] * x.flatten(1)[:, :3]

    asked = DiffeomorphicCounterfactual(shifted, method.generator)
    expected = asked.counterfactual(images(3), torch.tensor([1, 2, 0]), (torch.ones(3), torch.tensor([2.0])))
    with context():
        # What is made in inference mode cannot be differentiated through as it is.
        arguments = torch.ones(3), torch.tensor([2.0])
        received = asked.counterfactual(images(3), torch.tensor([1, 2, 0]), arguments)
        attributions = asked.attribute(images(3), torch.tensor([1, 2, 0]), arguments)
        near = asked.counterfactual(
            images(3), torch.tensor([1, 2, 0]), arguments, goal=Near(torch.full((3,), 12.0), 1.0)
        )
    assert near.reached.all()
    assert torch.equal(received.counterfactuals, expected.counterfactuals)
    assert torch.equal(attributions, expected.attributions)
    assert not attributions.requires_grad
