r"""Every method and every generator of the contract tests, on images of 1×4×4."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum.robust import PGD
from torch import Tensor, nn
from toys import Rotated, RowClassifier

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
    Pixels,
    PrototypeCounterfactual,
    Revise,
)
from captum_dcf.generators import AutoencoderGenerator


class Plain:
    r"""Coordinates that derive from nothing: the protocol alone."""

    exact = True
    free = slice(None)
    data_range = (0.0, 1.0)

    def __init__(self) -> None:
        self.rotated = Rotated().double()

    def encode(self, x: Tensor) -> Tensor:
        return self.rotated.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.rotated.decode(z)

    def typical_length(self, z: Tensor) -> Tensor:
        return z.new_tensor(4.0)

    def log_prob(self, x: Tensor) -> Tensor:
        raise TypeError("no density")

    def check_ready(self) -> None:
        pass

    def constant(self) -> Any:
        return self.rotated.constant()


class Half(Rotated):
    r"""Only every other coordinate may move, by an index."""

    free = torch.arange(0, 16, 2)


def autoencoder() -> Generator:
    r"""Approximate: an encoder to 12 dimensions and its pseudo-inverse."""
    basis = torch.linalg.qr(torch.randn(16, 12, generator=torch.Generator().manual_seed(3))).Q
    encoder, decoder = nn.Linear(16, 12, bias=False), nn.Linear(12, 16, bias=False)
    with torch.no_grad():
        encoder.weight.copy_(basis.T)
        decoder.weight.copy_(basis)
    return AutoencoderGenerator(
        nn.Sequential(nn.Flatten(), encoder), nn.Sequential(decoder, nn.Unflatten(1, (1, 4, 4)))
    )


def flow() -> Generator:
    r"""A small normalizing flow over rows of pixels."""
    import normflows as nf

    from captum_dcf.generators import NormalizingFlowGenerator

    torch.manual_seed(1)
    layers: list[Any] = []
    for _ in range(2):
        network = nf.nets.MLP([8, 16, 16], init_zeros=False)
        layers += [nf.flows.AffineCouplingBlock(network, scale_map="sigmoid"), nf.flows.LULinearPermute(16)]
    base = nf.distributions.DiagGaussian(16, trainable=False)
    return NormalizingFlowGenerator(nf.NormalizingFlow(base, layers), None, image_shape=(1, 4, 4))


GENERATORS: dict[str, Callable[[], Any]] = {
    "rotated": Rotated,
    "half": Half,
    "pixels": lambda: Pixels((1, 4, 4)),
    "autoencoder": autoencoder,
    "flow": flow,
    "protocol": Plain,
}


def pgd(model: nn.Module) -> PerturbationCounterfactual:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, target, reduction="none")

    settings = {"radius": 0.4, "step_size": 0.05, "step_num": 10}
    return PerturbationCounterfactual(model, PGD(model, loss, lower_bound=0.0, upper_bound=1.0), settings)


LATENT: dict[str, Callable[[nn.Module, Any], CounterfactualAttribution]] = {
    "diffeomorphic": DiffeomorphicCounterfactual,
    "diffeomorphic, Adam": lambda f, g: DiffeomorphicCounterfactual(f, g, step_rule=Adam(0.05), softening=0.0),
    "revise": Revise,
    "latent shift": LatentShift,
    "natural, hybrid": lambda f, g: NaturalCounterfactual(f, g, samples=40, shell_width=0.5, max_samples=400),
    "natural, iterative": lambda f, g: NaturalCounterfactual(
        f, g, strategy="iterative", samples=40, shell_width=1.0, max_samples=400
    ),
}
PIXEL: dict[str, Callable[[nn.Module], CounterfactualAttribution]] = {
    "adversarial": lambda f: AdversarialExample(f, step_rule=Adam(0.01)),
    "contrastive": lambda f: ContrastiveCounterfactual(f, outer_steps=2),
    "contrastive, autoencoder": lambda f: ContrastiveCounterfactual(
        f, autoencoder().double(), gamma=1.0, outer_steps=2
    ),
    "prototype": lambda f: PrototypeCounterfactual(
        f, torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(2)).double(), Rotated().double(), theta=0.1
    ),
    "perturbation": pgd,
}
CASES = [*((m, g) for m in LATENT for g in GENERATORS), *((m, "") for m in PIXEL)]
MAX_STEPS = 60


def made(name: str, generator: str) -> CounterfactualAttribution:
    model = RowClassifier().double().eval()
    if name in PIXEL:
        return PIXEL[name](model)
    coordinates = GENERATORS[generator]()
    return LATENT[name](model, coordinates.double().eval() if isinstance(coordinates, nn.Module) else coordinates)
