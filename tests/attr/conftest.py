r"""Every method, as tests of what all of them promise make it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captum.robust import FGSM, PGD
from torch import Tensor, nn
from torch.nn import functional as F

from captum_dcf import (
    Adam,
    AdversarialExample,
    ContrastiveCounterfactual,
    CounterfactualAttribution,
    DiffeomorphicCounterfactual,
    Generator,
    LatentShift,
    NaturalCounterfactual,
    PerturbationCounterfactual,
    PrototypeCounterfactual,
    Revise,
)

# From a model, a generator and the options of the model to a method; pixel methods leave the generator aside.
Make = Callable[..., CounterfactualAttribution]


def attack_loss(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output.float(), target, reduction="none")


# Captum's attacks show the model their own tensor, which a model that writes into it may not have: hence the clones.
def pgd(f: Callable[..., Tensor], g: Generator, **options: object) -> CounterfactualAttribution:
    settings = {"radius": 0.4, "step_size": 0.05, "step_num": 10}
    attack = PGD(lambda x: f(x.clone()), attack_loss, *(g.data_range or (-9.0, 9.0)))
    return PerturbationCounterfactual(f, attack, settings, g.data_range, **options)


def fgsm(f: Callable[..., Tensor], g: Generator, **options: object) -> CounterfactualAttribution:
    attack = FGSM(lambda x: f(x.clone()), attack_loss, *(g.data_range or (-9.0, 9.0)))
    return PerturbationCounterfactual(f, attack, {"epsilon": 0.3}, g.data_range, **options)


def prototype(f: Callable[..., Tensor], g: Generator, **options: object) -> CounterfactualAttribution:
    reference = torch.rand(100, 1, 4, 4, generator=torch.Generator().manual_seed(9))
    return PrototypeCounterfactual(f, reference, g, theta=1.0, c=100.0, data_range=g.data_range, **options)


def contrastive(f: Callable[..., Tensor], g: Generator, **options: object) -> CounterfactualAttribution:
    return ContrastiveCounterfactual(f, c=100.0, outer_steps=2, data_range=g.data_range, **options)


MAKERS: dict[str, Make] = {
    "diffeomorphic": DiffeomorphicCounterfactual,
    "revise": Revise,
    "latent shift": LatentShift,
    "natural hybrid": lambda f, g, **o: NaturalCounterfactual(f, g, samples=100, shell_width=0.05, **o),
    "natural iterative": lambda f, g, **o: NaturalCounterfactual(f, g, "iterative", samples=100, shell_width=0.3, **o),
    "adversarial": lambda f, g, **o: AdversarialExample(f, g.data_range, Adam(0.02), **o),
    "contrastive": contrastive,
    "prototype": prototype,
    "pgd": pgd,
    "fgsm": fgsm,
}
IN_LATENTS = ("diffeomorphic", "revise", "latent shift", "natural hybrid", "natural iterative")
ATTACKS = ("pgd", "fgsm")
MOST_STEPS = {"prototype": 80, "contrastive": 80}


@pytest.fixture(params=MAKERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(name: str) -> Make:
    r"""Makes the method of this name, with few steps."""

    def made(f: Callable[..., Tensor], g: Generator, **options: object) -> CounterfactualAttribution:
        method = MAKERS[name](f, g, **options)
        method.default_max_steps = MOST_STEPS.get(name, method.default_max_steps)
        return method

    return made


@pytest.fixture
def in_latents(name: str) -> bool:
    r"""Whether the method of this name searches in the coordinates of the generator."""
    return name in IN_LATENTS


@pytest.fixture
def is_attack(name: str) -> bool:
    r"""Whether it runs a perturbation of Captum, which calls the model itself."""
    return name in ATTACKS


@pytest.fixture
def any_method(make: Make, classifier: nn.Module, generator: Generator) -> CounterfactualAttribution:
    return make(classifier, generator)
