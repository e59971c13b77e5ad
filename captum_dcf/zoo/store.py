r"""Weights on disk: one safetensors file and one JSON card per model, checked by SHA-256 before anything is loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from captum_dcf.generators.autoencoder import AutoencoderGenerator

__all__ = ["Card", "build", "load", "names", "read_card", "save"]

SHIPPED = Path(__file__).parent / "weights"

# Where the function or class that a card names is found. Modules are imported when a card asks for them.
_ARCHITECTURES = {
    "glow": "captum_dcf.models.glow:glow",
    "conv_autoencoder": "captum_dcf.models.autoencoder:ConvAutoencoder",
    "conv_classifier": "captum_dcf.models.classifier:ConvClassifier",
    "residual_classifier": "captum_dcf.models.classifier:ResidualClassifier",
}


@dataclass(frozen=True)
class Card:
    r"""What a weight file holds and how it came to be.

    Attributes:
        name: Name of the model and of its two files.
        architecture: Which architecture of the package the weights belong to.
        arguments: Keyword arguments of that architecture.
        data: What it was trained on, with licence and attribution.
        training: Command, seed, epochs, learning rate and whatever else is needed to train it again.
        figures: Measured figures by name.
        measured: How the figures were measured, and what a longer training would change.
        sha256: Of the safetensors file.
    """

    name: str
    architecture: str
    arguments: dict[str, Any]
    data: str
    training: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    measured: str = ""
    sha256: str = ""


def names(folder: str | Path = SHIPPED) -> list[str]:
    r"""Names of the models in a folder, those that are shipped by default, sorted."""
    return sorted(path.stem for path in Path(folder).glob("*.json"))


def read_card(name: str, folder: str | Path = SHIPPED) -> Card:
    r"""The card of a model.

    Raises:
        FileNotFoundError: There is no card of that name in ``folder``.
        ValueError: The card is not a card.
    """
    path = Path(folder) / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"no model {name!r} in {str(folder)!r}; it has {names(folder)}")
    try:
        return Card(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a model card: {error}") from error


def load(name: str, folder: str | Path = SHIPPED) -> Any:
    r"""A trained model by name, in evaluation mode, on the CPU.

    A model with coordinates (a flow, an autoencoder) comes as a :class:`~captum_dcf.generators.Generator`, ready for a
    search; a classifier comes as it is and gives logits.

    Args:
        name: One of :func:`names`.
        folder: Where card and weights lie; the shipped ones by default, or the ``--out`` of ``captum-dcf train``.

    Raises:
        FileNotFoundError: There is no such card, or its weight file is missing.
        ValueError: The weight file is not the one the card was written for (its SHA-256 differs).

    Examples:
        >>> classifier = load("mnist-cnn")
        >>> generator = load("mnist-glow")
        >>> generator.exact
        True
    """
    card = read_card(name, folder)
    weights = _weights_path(name, folder)
    if not weights.is_file():
        raise FileNotFoundError(f"the card of {name!r} is there but its weights are not: expected {weights}")
    received = _sha256(weights)
    if received != card.sha256:
        raise ValueError(f"{weights} was altered: its SHA-256 is {received}, the card says {card.sha256}")
    # The first weights are drawn only to be replaced: the caller's random state stays as it is.
    with torch.random.fork_rng(devices=[]):
        model = build(card)
    try:
        model.load_state_dict({key: value.float() for key, value in load_file(weights).items()})
    except RuntimeError as error:
        raise ValueError(f"{weights} does not fit the architecture that its card describes: {error}") from error
    return _as_generator(model, card).eval()


def build(card: Card) -> nn.Module:
    r"""The untrained model that a card describes.

    Raises:
        ValueError: The card names an architecture that this version does not have, or arguments it does not take.
    """
    if card.architecture not in _ARCHITECTURES:
        raise ValueError(
            f"the card of {card.name!r} names the architecture {card.architecture!r}; "
            f"known are {sorted(_ARCHITECTURES)}"
        )
    try:
        return _imported(_ARCHITECTURES[card.architecture])(**card.arguments)
    except TypeError as error:
        raise ValueError(
            f"the card of {card.name!r} has arguments that do not fit {card.architecture!r}: {error}"
        ) from error


def save(model: nn.Module, card: Card, folder: str | Path) -> Card:
    r"""Writes weights and card into ``folder`` and returns the card with its SHA-256."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = _weights_path(card.name, folder)
    save_file({key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}, weights)
    weights.chmod(0o644)  # safetensors writes for the owner alone
    card = replace(card, sha256=_sha256(weights))
    text = json.dumps(asdict(card), indent=2, ensure_ascii=False) + "\n"
    (folder / f"{card.name}.json").write_text(text, encoding="utf-8")
    return card


def _as_generator(model: Any, card: Card) -> nn.Module:
    """Coordinates for a search, where the model can give them; the model itself otherwise."""
    if card.architecture == "glow":
        from captum_dcf.generators.flow import NormalizingFlowGenerator

        return NormalizingFlowGenerator(model)
    if card.architecture == "conv_autoencoder":
        return AutoencoderGenerator(model.encoder, model.decoder)
    return model


def _imported(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(module), name)


def _weights_path(name: str, folder: str | Path) -> Path:
    return Path(folder) / f"{name}.safetensors"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
