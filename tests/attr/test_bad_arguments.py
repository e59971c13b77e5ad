r"""Arguments of methods and calls: what is wrong is named, with what was received."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import normflows as nf
import numpy as np
import pytest
import torch
from captum.robust import FGSM
from toys import Rotated, RowClassifier, images

from captum_dcf import (
    Adam,
    AdversarialExample,
    AtLeast,
    ContrastiveCounterfactual,
    DiffeomorphicCounterfactual,
    LatentShift,
    NaturalCounterfactual,
    PerturbationCounterfactual,
    PrototypeCounterfactual,
    Revise,
)
from captum_dcf.models.glow import glow


def f() -> RowClassifier:
    return RowClassifier().eval()


MAKERS: dict[str, Callable[..., Any]] = {
    "diffeomorphic": lambda **a: DiffeomorphicCounterfactual(f(), **{"generator": Rotated(), **a}),
    "revise": lambda **a: Revise(f(), **{"generator": Rotated(), **a}),
    "latent shift": lambda **a: LatentShift(f(), **{"generator": Rotated(), **a}),
    "natural": lambda **a: NaturalCounterfactual(f(), **{"generator": Rotated(), **a}),
    "adversarial": lambda **a: AdversarialExample(f(), **a),
    "contrastive": lambda **a: ContrastiveCounterfactual(f(), **a),
    "prototype": lambda **a: PrototypeCounterfactual(
        f(), **{"reference": torch.rand(9, 1, 4, 4), "autoencoder": Rotated(), **a}
    ),
    "perturbation": lambda **a: PerturbationCounterfactual(f(), **{"perturbation": FGSM(f()), **a}),
}

# What is wrong wherever a number is wanted, and wherever a whole one is.
NO_NUMBERS = ("a", [1.0], (1,), {}, 1j, torch.tensor([1.0, 2.0]), np.array([1.0, 2.0]), object(), True)
NO_INTS = (*NO_NUMBERS, 2.5, float("nan"), float("inf"), torch.tensor(2), 2**70)
NO_OBJECTS = (1.5, "a", [1], {}, 1j, torch.tensor([1.0, 2.0]), int)
NO_FLOATS = (*NO_NUMBERS, float("nan"), float("inf"), -1.0)

WRONG: dict[str, dict[str, tuple[Any, ...]]] = {
    "diffeomorphic": {"generator": (None, *NO_OBJECTS), "step_rule": NO_OBJECTS, "softening": (None, *NO_FLOATS)},
    "revise": {"generator": (None, *NO_OBJECTS), "step_rule": NO_OBJECTS, "distance_weight": (None, *NO_FLOATS)},
    "latent shift": {
        "generator": (None, *NO_OBJECTS),
        "step_length": ("a", [1.0], {}, 1j, torch.tensor([1.0, 2.0]), object(), True, float("nan"), float("inf"), 0.0),
    },
    "natural": {
        "generator": (None, *NO_OBJECTS),
        "strategy": (None, "shrinking", *NO_NUMBERS),
        "samples": (None, 0, -1, *NO_INTS),
        "shell_width": (None, 0.0, 11.0, *NO_FLOATS),
        "outermost": (None, 0.0, 0.001, *NO_FLOATS),
        "patience": (None, 0, *NO_INTS),
        "max_samples": (None, 0, 9, *NO_INTS),
        "seed": (None, -1, *NO_INTS),
    },
    "adversarial": {"step_rule": NO_OBJECTS},
    "contrastive": {
        "autoencoder": NO_OBJECTS,
        "kappa": (None, *NO_FLOATS),
        "beta": (None, *NO_FLOATS),
        "gamma": (None, *NO_FLOATS),
        "c": (None, 0.0, *NO_FLOATS),
        "outer_steps": (None, 0, *NO_INTS),
        "lr": (None, 0.0, *NO_FLOATS),
    },
    "prototype": {
        "reference": (None, 1.5, "a", [images(2)], images(2).long(), images(2) * torch.nan, images(0), torch.rand(4)),
        "autoencoder": (None, torch.nn.Linear(2, 2), *NO_OBJECTS),
        "theta": (None, *NO_FLOATS),
        "neighbors": (None, 0, *NO_INTS),
    },
    "perturbation": {
        "perturbation": (None, *NO_OBJECTS),
        "arguments": ("abc", 1.5, [1], {1: 2}, torch.tensor([1.0, 2.0])),
    },
}
OF_EVERY_METHOD: dict[str, tuple[Any, ...]] = {
    "output": (None, "logit", 1, ["logits"], torch.tensor([1, 2]), np.array(["logits", "b"])),
    "select": (1.5, True, ["a"], ("a",), {}, torch.tensor([1.0, 2.0])),
    "normalize": (
        *("ab", 1.0, (0.5,), (0.5, 0.0), (0.5, -1.0), ("a", 1.0), (0.5, None), (0.5, float("nan")), ((), 1.0)),
        *(([0.5, "a"], 1.0), (0.5, [1.0, 0.0]), torch.tensor([0.5, 0.5]), {0: 1, 1: 2}, (0.5, True)),
    ),
}
OF_PIXEL_METHODS: dict[str, tuple[Any, ...]] = {
    "data_range": (
        *("ab", 1.0, True, (1.0,), (0.0, 1.0, 2.0), (1.0, 0.0), (0.5, 0.5), (0.0, float("inf")), (0.0, float("nan"))),
        *((None, 1.0), ("a", "b"), {0.0, 1.0}, {}, torch.tensor([0.0, 1.0]), np.array([0.0, 1.0]), (0j, 1j), Rotated()),
    )
}


def cases() -> list[Any]:
    found = []
    for name, arguments in WRONG.items():
        everywhere = {**OF_EVERY_METHOD, **(OF_PIXEL_METHODS if "generator" not in arguments else {})}
        for argument, values in {**arguments, **everywhere}.items():
            found.append(pytest.param(name, argument, values, id=f"{name} {argument}"))
    return found


@pytest.mark.parametrize(("name", "argument", "values"), cases())
def test_c25_wrong_arguments_of_constructors_are_named(name: str, argument: str, values: tuple[Any, ...]):
    MAKERS[name]()
    for value in values:
        with pytest.raises((TypeError, ValueError)) as caught:
            MAKERS[name](**{argument: value})
        message = str(caught.value)
        assert argument in message, (value, message)
        assert re.search("must (be|hold|have)", message) or "takes no generator" in message, (value, message)


def test_the_wrong_values_are_of_all_arguments():
    # So that an argument that is added is tried too.
    for name, arguments in WRONG.items():
        parameters = inspect.signature(type(MAKERS[name]()).__init__).parameters
        known = {*arguments, *(OF_PIXEL_METHODS if "generator" not in arguments else {})}
        if name == "prototype":
            known |= set(WRONG["contrastive"])
        assert set(parameters) - {"self", "forward_func", "model_options"} == known


def test_whole_numbers_of_any_library_are_taken():
    method = MAKERS["natural"](samples=np.int64(64), max_samples=np.uint8(200), seed=np.int32(3), patience=np.int16(2))
    assert (method.samples, method.max_samples, method.seed, method.patience) == (64, 200, 3, 2)
    method = MAKERS["contrastive"](kappa=np.float32(0.5), outer_steps=np.int8(3), c=1)
    assert (method.kappa, method.outer_steps, method.c) == (0.5, 3, 1.0)


@pytest.mark.parametrize("forward_func", [None, 1, "model", torch.rand(2)])
def test_what_is_no_model(forward_func: Any):
    with pytest.raises(TypeError, match=f"forward_func must be .*received {type(forward_func).__name__}"):
        DiffeomorphicCounterfactual(forward_func, Rotated())


def test_u7_a_flow_that_is_not_wrapped_is_told_of_its_adapter():
    flow = glow((1, 4, 4), [1], [4])
    assert isinstance(flow, nf.MultiscaleFlow)
    with pytest.raises(TypeError, match=r"received MultiscaleFlow.*NormalizingFlowGenerator"):
        DiffeomorphicCounterfactual(RowClassifier(), flow)


def test_an_object_that_lacks_what_a_generator_has_is_told_what():
    class Half:
        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with pytest.raises(TypeError, match="received Half, which has no decode"):
        DiffeomorphicCounterfactual(RowClassifier(), Half())
    with pytest.raises(TypeError, match="captum_dcf Generator"):
        DiffeomorphicCounterfactual(RowClassifier(), Rotated)
    with pytest.raises(TypeError, match=r"takes no generator.*data_range.*with_latents"):
        AdversarialExample(RowClassifier(), Rotated())


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"confidence": 1.0}, ValueError, "between 0 and 1, received 1.0"),
        ({"confidence": 0}, ValueError, "between 0 and 1, received 0"),
        ({"confidence": -0.5}, ValueError, "between 0 and 1, received -0.5"),
        ({"confidence": float("nan")}, ValueError, "between 0 and 1, received nan"),
        ({"confidence": "high"}, TypeError, "confidence.*str"),
        ({"max_steps": 0}, ValueError, "max_steps must be at least 1 .*received 0"),
        ({"max_steps": 2.0}, TypeError, "max_steps must be an int, received float"),
        ({"max_steps": True}, TypeError, "max_steps must be an int, received bool"),
        ({"max_steps": 2**70}, ValueError, "max_steps must be .*below 2..63, received"),
        ({"max_seconds": 0}, ValueError, "max_seconds must be positive, received 0"),
        ({"internal_batch_size": 0}, ValueError, "internal_batch_size must be at least 1 .*received 0"),
        ({"internal_batch_size": -3}, ValueError, "internal_batch_size must be at least 1 .*received -3"),
        ({"internal_batch_size": 1.5}, TypeError, "internal_batch_size must be an int.*received float"),
        ({"refine": 1}, TypeError, "refine must be True or False, received 1"),
        ({"goal": "class 9"}, TypeError, "goal must be a captum_dcf Goal.*received str"),
        ({"goal": AtLeast}, TypeError, "goal must be a captum_dcf Goal"),
        ({"latents": torch.zeros(3, 16).long()}, TypeError, "latents must be a floating point tensor .*int64"),
        ({"latents": torch.zeros(2, 16)}, ValueError, r"each of the 3 inputs, received \(2, 16\)"),
        ({"steps": 5}, TypeError, "steps"),
    ],
)
def test_wrong_options_of_a_call(
    method: DiffeomorphicCounterfactual, arguments: dict[str, Any], error: type[Exception], says: str
):
    with pytest.raises(error, match=says):
        method.attribute(images(3), target=1, **arguments)


@pytest.mark.filterwarnings("ignore::captum_dcf.CounterfactualWarning")
def test_c40_whole_numbers_of_numpy_are_options_too(method: DiffeomorphicCounterfactual):
    plain = method.attribute(images(3), target=1, max_steps=5, internal_batch_size=2)
    numpy = method.attribute(images(3), np.int64(1), max_steps=np.int64(5), internal_batch_size=np.int32(2))
    assert torch.equal(plain, numpy)


def test_a_step_rule_is_no_class():
    with pytest.raises(TypeError, match="step_rule must be a captum_dcf StepRule"):
        DiffeomorphicCounterfactual(RowClassifier(), Rotated(), Adam)
