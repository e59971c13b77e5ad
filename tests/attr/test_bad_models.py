r"""Models whose output cannot be searched are refused by what they give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import RowClassifier, images

from captum_dcf import DiffeomorphicCounterfactual, Generator


class Empty:
    r"""An output in which nothing is a tensor."""


@pytest.mark.parametrize(
    ("output", "error", "says"),
    [
        (lambda x: ({"a": x}, x), TypeError, "return a tensor.*received dict.*select="),
        (lambda x: {"scores": x.flatten(1)}, TypeError, "return a tensor.*received dict.*select="),
        (lambda x: (), TypeError, "return a tensor.*received tuple"),
        (lambda x: Empty(), TypeError, "return a tensor.*received Empty"),
        (lambda x: x.flatten(1).detach().numpy(), TypeError, "return a tensor.*received ndarray"),
        (lambda x: None, TypeError, "return a tensor.*received NoneType"),
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
        (lambda x: x, ValueError, r"\(N, classes\).*received \(3, 1, 4, 4\)"),
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


@pytest.mark.parametrize("select", ["scores", 5, "shape of it"])
def test_a_part_that_the_output_has_not(classifier: nn.Module, generator: Generator, select: str | int):
    method = DiffeomorphicCounterfactual(lambda x: {"logits": classifier(x)}, generator, select=select)
    with pytest.raises(ValueError, match=rf"select={select!r} names no part .* dict with \['logits'\]"):
        method.attribute(images(3), target=1)


def test_logits_that_are_said_to_be_probabilities(classifier: nn.Module, generator: Generator):
    with pytest.raises(ValueError, match="sum to 1"):
        DiffeomorphicCounterfactual(classifier, generator, output="probabilities").attribute(images(3), target=1)


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_one_logit_needs_another_kind(classifier: nn.Module, generator: Generator, output: str):
    method = DiffeomorphicCounterfactual(lambda x: classifier(x)[:, :1].sigmoid(), generator, output=output)
    with pytest.raises(ValueError, match=r"binary_logit|sum to 1"):
        method.attribute(images(3), target=1)
    method = DiffeomorphicCounterfactual(classifier, generator, output="binary_logit")
    with pytest.raises(ValueError, match=r"binary logit must have the shape .* received \(3, 3\)"):
        method.attribute(images(3), target=1)


@pytest.mark.parametrize("error", [KeyError("no such layer"), ZeroDivisionError("mine"), NotImplementedError("mine")])
def test_errors_of_the_models_own_arrive_as_they_are(generator: Generator, error: Exception):
    def broken(x: Tensor) -> Tensor:
        raise error

    with pytest.raises(type(error)) as caught:
        DiffeomorphicCounterfactual(broken, generator).attribute(images(2), target=1)
    assert caught.value is error


def test_c27_a_runtime_error_of_the_models_own_keeps_its_words(generator: Generator):
    def broken(x: Tensor) -> Tensor:
        raise RuntimeError("the disk is full")

    with pytest.raises(ValueError, match=r"forward_func failed on .*\(2, 1, 4, 4\).*: the disk is full") as caught:
        DiffeomorphicCounterfactual(broken, generator).attribute(images(2), target=1)
    assert isinstance(caught.value.__cause__, RuntimeError)
