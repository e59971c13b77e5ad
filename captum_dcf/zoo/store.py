r"""Weights on disk: one safetensors file and one card per model, checked by SHA-256 before anything is loaded."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from captum_dcf.generators import Support
from captum_dcf.models.registry import architecture
from captum_dcf.outputs import refuse_existing
from captum_dcf.registry import imported
from captum_dcf.zoo.card import SHIPPED, Card, card_path, names, read_card, weights_path

__all__ = ["SHIPPED", "Card", "build", "check_absent", "load", "names", "read_card", "save", "searchable"]


def load(name: str, folder: str | Path = SHIPPED) -> Any:
    r"""A trained model by name, in evaluation mode, on the CPU.

    A model with coordinates (a flow, an autoencoder) comes as a :class:`~captum_dcf.generators.Generator`, ready for a
    search; a classifier comes as it is and gives logits.

    Args:
        name: One of :func:`names`.
        folder: Where card and weights lie; the shipped ones by default, or the ``--out`` of ``captum-dcf train``.

    Raises:
        FileNotFoundError: There is no such card, or its weight file is missing.
        ValueError: ``name`` is no name; the card is none, or describes no model of the package or of those that were
            registered; the weight file is not the one the card was written for (its SHA-256 differs), or does not fit.

    Examples:
        >>> classifier = load("mnist-cnn")
        >>> generator = load("mnist-glow")
        >>> generator.exact
        True
    """
    card = read_card(name, folder)
    weights = _read_weights(card, folder)
    # The first weights are drawn only to be replaced: the caller's random state stays as it is, and the device is the
    # CPU whatever device the caller's block names.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        model = build(card)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"{weights_path(name, folder)} does not fit the architecture that its card describes: {error}"
        ) from error
    return searchable(model, card.architecture, card.support).eval()


def searchable(model: nn.Module, name: str, support: Mapping[str, Any] | None = None) -> nn.Module:
    r"""A model of the architecture ``name`` as it is used: as a generator with its support, where it has coordinates.

    Raises:
        ValueError: ``support`` is none.
    """
    generator = architecture(name).generator
    used: Any = model if generator is None else imported(generator)(model)
    if support:
        try:
            used.support = Support(**support)
        except TypeError as error:
            raise ValueError(f"a support must have 'of' and 'quantiles', received {sorted(support)}") from error
    return cast(nn.Module, used)


def build(card: Card) -> nn.Module:
    r"""The untrained model that a card describes.

    Raises:
        ValueError: The card names an architecture that is neither the package's nor registered, or arguments that it
            does not take.
        ImportError: The architecture needs a package that is not installed.
    """
    try:
        builder = imported(architecture(card.architecture).build)
    except ValueError as error:
        raise ValueError(f"the card of {card.name!r} describes no known model: {error}") from error
    try:
        model: nn.Module = builder(**card.arguments)
    except ImportError:
        raise
    except Exception as error:  # whatever an architecture raises for sizes that are none
        raise ValueError(
            f"the card of {card.name!r} has arguments that do not fit {card.architecture!r}: {error}"
        ) from error
    return model


def save(model: nn.Module, card: Card, folder: str | Path, overwrite: bool = False, half: bool = False) -> Card:
    r"""Writes weights and card into ``folder`` and returns the card as it was written, with its SHA-256.

    Nothing is written unless both can be. Both files are written beside those of that name, if there are any, and take
    their places at the end.

    Args:
        model: The model whose ``state_dict`` is saved.
        card: What it is.
        folder: Where to; it is made if need be.
        overwrite: Whether to replace a model of that name.
        half: Store float32 as float16, in half of the space; :func:`load` gives float32.

    Raises:
        FileExistsError: There is a model of that name, and ``overwrite`` is not set.
        ValueError: A weight is too large for ``half``.
        TypeError: The card holds something that JSON does not have.
    """
    # Copies, for tensors that share memory (tied weights) or are views cannot be written.
    state = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    if half:
        state = {key: _halved(key, value) for key, value in state.items()}
    weights = tensors_to_bytes(state)
    text = replace(card, sha256=hashlib.sha256(weights).hexdigest()).as_json()
    if not overwrite:
        check_absent(card.name, folder)
    Path(folder).mkdir(parents=True, exist_ok=True)
    _write({weights_path(card.name, folder): weights, card_path(card.name, folder): text.encode()})
    return Card(**json.loads(text))


def check_absent(name: str, folder: str | Path) -> None:
    r"""Refuses a folder that has weights or a card of that name.

    Raises:
        FileExistsError: There is one of them.
    """
    refuse_existing([weights_path(name, folder), card_path(name, folder)])


def _halved(key: str, value: Tensor) -> Tensor:
    if value.dtype != torch.float32:
        return value
    halved = value.half()
    if not torch.equal(halved.isfinite(), value.isfinite()):
        raise ValueError(f"{key} has values up to {value.abs().max():.4g}, and half precision ends at 65504")
    return halved


def _read_weights(card: Card, folder: str | Path) -> dict[str, Tensor]:
    path = weights_path(card.name, folder)
    if not path.is_file():
        raise FileNotFoundError(f"the card of {card.name!r} is there but its weights are not: expected {path}")
    content = path.read_bytes()
    received = hashlib.sha256(content).hexdigest()
    if received != card.sha256:
        raise ValueError(f"{path} was altered: its SHA-256 is {received}, the card says {card.sha256}")
    try:
        return tensors_from_bytes(content)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error


def _write(files: dict[Path, bytes]) -> None:
    """Writes all files under temporary names before the first of them takes its place."""
    written = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    try:
        for path, content in files.items():
            with written[path].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in written.items():
            temporary.replace(path)
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)
