r"""Architectures by name: how a model is built, what it is, and how a search moves in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from captum_dcf import registry

__all__ = ["ARCHITECTURES", "Architecture", "Role", "architecture", "register"]

Role = Literal["classifier", "regressor", "generator"]


@dataclass(frozen=True)
class Architecture:
    r"""What a card or a recipe means by the name of an architecture.

    Attributes:
        build: ``"module:callable"`` that gives the untrained model, a ``torch.nn.Module``; its keyword arguments stand
            on the card. Modules are imported when a card asks for them.
        role: ``"classifier"``, gives logits (N, C), or (N, 1) of two classes; ``"regressor"``, gives values (N,) or
            (N, 1); ``"generator"``, gives coordinates for a search.
        generator: ``"module:callable"`` that makes a :class:`~captum_dcf.generators.Generator` of the trained model;
            None where the model is one, or no generator at all.
    """

    build: str
    role: Role
    generator: str | None = None

    def __post_init__(self) -> None:
        registry.check_place(self.build, "build")
        if self.generator is not None:
            registry.check_place(self.generator, "generator")
        if self.role not in get_args(Role):
            raise ValueError(f"role must be one of {get_args(Role)}, received {self.role!r}")


ARCHITECTURES: dict[str, Architecture] = {
    "glow": Architecture(
        build="captum_dcf.models.glow:glow",
        role="generator",
        generator="captum_dcf.generators.flow:NormalizingFlowGenerator",
    ),
    "conv_autoencoder": Architecture(
        build="captum_dcf.models.autoencoder:ConvAutoencoder",
        role="generator",
        generator="captum_dcf.zoo.adapters:autoencoder_generator",
    ),
    "conv_vae": Architecture(
        build="captum_dcf.models.vae:ConvVAE",
        role="generator",
        generator="captum_dcf.zoo.adapters:autoencoder_generator",
    ),
    "conv_gan": Architecture(
        build="captum_dcf.models.gan:ConvGAN",
        role="generator",
        generator="captum_dcf.zoo.adapters:autoencoder_generator",
    ),
    "conv_regressor": Architecture(build="captum_dcf.models.classifier:ConvRegressor", role="regressor"),
    "conv_classifier": Architecture(build="captum_dcf.models.classifier:ConvClassifier", role="classifier"),
    "residual_classifier": Architecture(build="captum_dcf.models.classifier:ResidualClassifier", role="classifier"),
    "helix_flow": Architecture(
        build="captum_dcf.models.helix:helix_flow",
        role="generator",
        generator="captum_dcf.zoo.adapters:point_flow_generator",
    ),
    "helix_classifier": Architecture(build="captum_dcf.models.helix:helix_classifier", role="classifier"),
}


def architecture(name: str) -> Architecture:
    r"""An architecture by name.

    Raises:
        ValueError: There is none of that name.
    """
    return registry.find(ARCHITECTURES, name, "architecture")


def register(name: str, architecture: Architecture) -> None:
    r"""Adds an architecture of one's own, so that it can be trained, saved, loaded and searched by name.

    It has to be registered before weights of it are loaded: a card names it, and imports nothing by itself.

    Raises:
        ValueError: Another architecture has that name.
    """
    registry.add(ARCHITECTURES, name, architecture, "architecture")
