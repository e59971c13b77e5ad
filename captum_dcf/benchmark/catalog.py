r"""What the names in a TOML file stand for: methods and measures, each made from the models of a setup."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_dcf import metrics
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
from captum_dcf.benchmark.plan import Case, Measure, Method, counterfactual_methods
from captum_dcf.benchmark.saliency import (
    SALIENCY,
    deletion_measure,
    infidelity_measure,
    insertion_measure,
    saliency_arguments,
    saliency_method,
    sensitivity_measure,
)
from captum_dcf.generators import Generator
from captum_dcf.search import Adam

__all__ = ["Setup", "as_generator", "make_measure", "make_methods"]

# Arguments of a call, not of a class.
CALL_ARGUMENTS = ("max_steps", "refine", "internal_batch_size")


@dataclass(frozen=True)
class Setup:
    r"""What methods and measures are made from.

    Attributes:
        model: The explained model.
        generators: Generators by name.
        confidences: Λ of the counterfactual methods.
        load: From the name of a model to the model.
        reference: Loads real images and their classes, on the CPU: for prototypes, neighbours and oracles.
        device: Where models and images are.
    """

    model: nn.Module
    generators: Mapping[str, Generator]
    confidences: list[float]
    load: Callable[[str], nn.Module]
    reference: Callable[[], tuple[Tensor, Tensor]]
    device: str = "cpu"


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
        _check_known(f"arguments of {label!r}", arguments, [])
        return [Method(label, lambda images, targets: images)]
    if method in SALIENCY:
        _check_known(f"arguments of {label!r}", arguments, saliency_arguments(method, setup.model))
        made = saliency_method(method, setup.model, **arguments)
        return [Method(label, made.explain)]
    _check_known("method", [method], ["Original", *SALIENCY, *COUNTERFACTUALS])
    factory = COUNTERFACTUALS[method]
    call = {name: value for name, value in arguments.items() if name in CALL_ARGUMENTS}
    own = {name: value for name, value in arguments.items() if name not in CALL_ARGUMENTS}
    _check_known(f"arguments of {label!r}", own, [*_parameters_of(factory), *CALL_ARGUMENTS])
    if "reference" in inspect.signature(factory).parameters:
        own["reference"] = setup.reference()[0].to(setup.device)
    if "autoencoder" in own:
        own["autoencoder"] = setup.load(own["autoencoder"])
    try:
        if "adam" in own:
            own["step_rule"] = _adam(own.pop("adam"))
        return counterfactual_methods(
            {label: partial(factory, **own)}, setup.model, setup.generators, setup.confidences, **call
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"the method {label!r}: {error}") from error


def make_measure(setup: Setup, label: str, measure: str, arguments: Mapping[str, Any]) -> Measure:
    r"""The measure that one entry of a TOML file stands for.

    Raises:
        ValueError: An unknown measure or argument.
    """
    _check_known("measure", [measure], MEASURES)
    factory = MEASURES[measure]
    _check_known(f"arguments of {label!r}", arguments, list(inspect.signature(factory).parameters)[1:])
    try:
        inspect.signature(factory).bind(setup, **arguments)
    except TypeError as error:
        raise ValueError(f"the measure {label!r} is not complete: {error}") from error
    return factory(setup, **arguments)


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


def _pgd(
    model: nn.Module, generator: Generator, radius: float = 0.3, step_size: float = 0.01, steps: int = 40
) -> PerturbationCounterfactual:
    from captum.robust import PGD

    attack = PGD(model, _cross_entropy, *_bounds(generator))
    settings = {"radius": radius, "step_size": step_size, "step_num": steps}
    return PerturbationCounterfactual(model, generator, attack, settings)


def _fgsm(model: nn.Module, generator: Generator, epsilon: float = 0.3) -> PerturbationCounterfactual:
    from captum.robust import FGSM

    attack = FGSM(model, _cross_entropy, *_bounds(generator))
    return PerturbationCounterfactual(model, generator, attack, {"epsilon": epsilon})


def _bounds(generator: Generator) -> tuple[float, float]:
    return generator.data_range or (float("-inf"), float("inf"))


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


def _of_pair(measure: Callable[..., Tensor]) -> Callable[[Setup], Measure]:
    def factory(setup: Setup) -> Measure:
        return lambda case: measure(case.inputs, case.counterfactuals)

    return factory


def _l2_latent(setup: Setup, generator: str) -> Measure:
    encoder = _generator(setup, generator)
    return lambda case: metrics.l2_latent(encoder, case.inputs, case.counterfactuals)


def _log_likelihood(setup: Setup, generator: str) -> Measure:
    density = _generator(setup, generator)
    return lambda case: metrics.log_likelihood(density, case.counterfactuals)


def _im1(setup: Setup, autoencoders: str) -> Measure:
    r"""``autoencoders`` is their name with {} where the class stands."""
    if not isinstance(autoencoders, str) or "{}" not in autoencoders:
        raise ValueError(f"autoencoders must be a name with {{}} where the class stands, received {autoencoders!r}")
    load = cache(lambda label: setup.load(autoencoders.replace("{}", str(label))))

    def measure(case: Case) -> Tensor:
        classes = torch.cat((case.targets, case.labels)).unique().tolist()
        known = {label: load(label) for label in classes}
        return metrics.im1(known, case.counterfactuals, case.targets, case.labels)

    return measure


def _svm_agreement(setup: Setup) -> Measure:
    @cache
    def oracle() -> Any:
        from captum_dcf.training.oracle import fit_svm_oracle

        return fit_svm_oracle(*setup.reference())

    return lambda case: metrics.oracle_agreement(oracle(), case.counterfactuals, case.targets)


def _oracle_agreement(setup: Setup, model: str) -> Measure:
    load = cache(lambda: setup.load(model))
    return lambda case: metrics.oracle_agreement(load(), case.counterfactuals, case.targets)


def _neighbors(setup: Setup, k: int = 10) -> Measure:
    @cache
    def reference() -> tuple[Tensor, Tensor]:
        images, labels = setup.reference()
        return images.to(setup.device), labels.to(setup.device)

    return lambda case: metrics.neighbor_agreement(case.counterfactuals, case.targets, *reference(), k=k)


def _cout(setup: Setup, steps: int = 50) -> Measure:
    return lambda case: metrics.cout(
        setup.model, case.inputs, case.counterfactuals, case.targets, case.labels, steps=steps
    )


def _deletion(setup: Setup, steps: int = 10) -> Measure:
    return deletion_measure(setup.model, steps)


def _insertion(setup: Setup, steps: int = 10) -> Measure:
    return insertion_measure(setup.model, steps)


def _infidelity(setup: Setup, noise: float = 0.2, samples: int = 20) -> Measure:
    return infidelity_measure(setup.model, noise, samples)


def _sensitivity(setup: Setup, radius: float = 0.02, samples: int = 4) -> Measure:
    return sensitivity_measure(radius, samples)


MEASURES: dict[str, Callable[..., Measure]] = {
    "ssim": _of_pair(metrics.ssim),
    "l1": _of_pair(metrics.l1),
    "l2_input": _of_pair(metrics.l2_input),
    "sparsity": _of_pair(metrics.sparsity),
    "l2_latent": _l2_latent,
    "log_likelihood": _log_likelihood,
    "im1": _im1,
    "svm_agreement": _svm_agreement,
    "oracle_agreement": _oracle_agreement,
    "neighbor_agreement": _neighbors,
    "cout": _cout,
    "deletion": _deletion,
    "insertion": _insertion,
    "infidelity": _infidelity,
    "sensitivity": _sensitivity,
}


def _generator(setup: Setup, name: str) -> Generator:
    return setup.generators[name] if name in setup.generators else as_generator(name, setup.load(name))


def _parameters_of(factory: Callable[..., Any]) -> list[str]:
    given = {"model", "forward_func", "generator", "reference"}
    names = [name for name in inspect.signature(factory).parameters if name not in given]
    return ["adam" if name == "step_rule" else name for name in names]


def _check_known(what: str, received: Any, known: Any) -> None:
    unknown = [name for name in received if name not in known]
    if unknown:
        accepted = ", ".join(known) if known else "none"
        raise ValueError(f"unknown {what}: {', '.join(map(repr, unknown))}; known are {accepted}")
