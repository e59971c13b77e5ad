r"""What the names in a TOML file stand for: methods, made from the models of a setup."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from captum_dcf.attr import (
    AdversarialExample,
    ContrastiveCounterfactual,
    CounterfactualAttribution,
    DiffeomorphicCounterfactual,
    LatentShift,
    NaturalCounterfactual,
    PerturbationCounterfactual,
    PrototypeCounterfactual,
    Revise,
)
from captum_dcf.benchmark.plan import Method, counterfactual_methods
from captum_dcf.benchmark.real import NearestReal
from captum_dcf.benchmark.saliency import SALIENCY, saliency_arguments, saliency_method
from captum_dcf.benchmark.setup import Setup, check_known
from captum_dcf.generators import Generator
from captum_dcf.search import Adam

__all__ = ["COUNTERFACTUALS", "as_generator", "make_methods"]

# Rows between which those of the methods lie: x itself, and the nearest real image that reaches the goal.
BOUNDS = ("Original", "NearestReal")
# Arguments of a call, not of a class.
CALL_ARGUMENTS = (
    "max_steps",
    "max_seconds",
    "min_percentile",
    "refine",
    "search_unreconstructed",
    "internal_batch_size",
)
NO_BOUNDS = (float("-inf"), float("inf"))


def make_methods(setup: Setup, label: str, method: str, arguments: Mapping[str, Any]) -> list[Method]:
    r"""The methods that one entry of a TOML file stands for: one per generator and confidence, or just one.

    Args:
        setup: What to make them from.
        label: Their name in the table.
        method: What they are.
        arguments: Further arguments, of the class or of the call.

    Raises:
        ValueError: An unknown method or argument.
    """
    if method == "Original":
        check_known(f"arguments of {label!r}", arguments, [])
        return [Method(label, lambda images, goal: images)]
    if method == "NearestReal":
        check_known(f"arguments of {label!r}", arguments, [])
        nearest = NearestReal(setup.model, setup.references)
        return [Method(label, nearest, confidence=confidence) for confidence in setup.confidences]
    if method in SALIENCY:
        check_known(f"arguments of {label!r}", arguments, saliency_arguments(method, setup.model))
        made = saliency_method(method, setup.model, **arguments)
        return [Method(label, made.explain)]
    check_known("method", [method], [*BOUNDS, *SALIENCY, *COUNTERFACTUALS])
    factory = COUNTERFACTUALS[method]
    call = {name: value for name, value in arguments.items() if name in CALL_ARGUMENTS}
    own = {name: value for name, value in arguments.items() if name not in CALL_ARGUMENTS}
    check_known(f"arguments of {label!r}", own, [*_parameters_of(factory), *CALL_ARGUMENTS])
    if "reference" in inspect.signature(factory).parameters:
        own["reference"] = setup.references()[0]
    if "autoencoder" in own:
        own["autoencoder"] = setup.weights.load(own["autoencoder"])
    try:
        if "adam" in own:
            own["step_rule"] = _adam(own.pop("adam"))
        factories = {label: partial(_made, factory, own)}
        return counterfactual_methods(factories, setup.model, setup.generators, setup.confidences, **call)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the method {label!r}: {error}") from error


def as_generator(name: str, model: nn.Module) -> Generator:
    r"""A model that is to be a generator.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(model, Generator):
        raise ValueError(f"{name!r} is no generator: it has no encode and decode; received a {type(model).__name__}")
    return model


def _adam(rate: Any) -> Adam:
    if isinstance(rate, bool) or not isinstance(rate, (int, float)):
        raise ValueError(f"adam must be a learning rate, received {rate!r}")
    return Adam(rate)


def _made(
    factory: Callable[..., CounterfactualAttribution], own: Mapping[str, Any], model: nn.Module, generator: Generator
) -> CounterfactualAttribution:
    """A method that searches with the generator, or in pixels of the generator's range."""
    if "generator" in inspect.signature(factory).parameters:
        return factory(model, generator=generator, **own)
    return factory(model, data_range=generator.data_range, **own)


def _pgd(
    model: nn.Module,
    data_range: tuple[float, float] | None,
    radius: float = 0.3,
    step_size: float = 0.01,
    steps: int = 40,
) -> PerturbationCounterfactual:
    from captum.robust import PGD

    attack = PGD(model, _cross_entropy, *(data_range or NO_BOUNDS))
    settings = {"radius": radius, "step_size": step_size, "step_num": steps}
    return PerturbationCounterfactual(model, attack, settings, data_range)


def _fgsm(model: nn.Module, data_range: tuple[float, float] | None, epsilon: float = 0.3) -> PerturbationCounterfactual:
    from captum.robust import FGSM

    attack = FGSM(model, _cross_entropy, *(data_range or NO_BOUNDS))
    return PerturbationCounterfactual(model, attack, {"epsilon": epsilon}, data_range)


def _cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


COUNTERFACTUALS: dict[str, Callable[..., CounterfactualAttribution]] = {
    "DiffeomorphicCounterfactual": DiffeomorphicCounterfactual,
    "AdversarialExample": AdversarialExample,
    "Revise": Revise,
    "NaturalCounterfactual": NaturalCounterfactual,
    "PrototypeCounterfactual": PrototypeCounterfactual,
    "ContrastiveCounterfactual": ContrastiveCounterfactual,
    "LatentShift": LatentShift,
    "PGD": _pgd,
    "FGSM": _fgsm,
}


def _parameters_of(factory: Callable[..., Any]) -> list[str]:
    given = {"model", "forward_func", "generator", "data_range", "reference"}
    # Every method takes the kind of its model's output; "model_options" stands for that and for what TOML cannot say.
    names = {"step_rule": "adam", "model_options": "output"}
    return [names.get(name, name) for name in inspect.signature(factory).parameters if name not in given]
