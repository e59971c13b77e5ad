r"""What ``captum-dcf train`` does: a kind of model on images of one's own, or a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from captum_dcf.training import run
from captum_dcf.training.kinds import KINDS, train_kind
from captum_dcf.training.recipes import RECIPES
from captum_dcf.training.trainer import Hardware
from captum_dcf.zoo.card import Card

__all__ = ["parse_arguments", "train_by_command"]

_OF_BOTH = ("minutes", "epochs", "seed", "limit", "credit")
_HARDWARE = ("accelerator", "devices", "nodes", "precision", "strategy")


def train_by_command(what: str, data: Path | None, out: Path, options: Mapping[str, Any]) -> Card:
    r"""Trains a kind of model or a recipe.

    Args:
        what: One of the kinds or of the recipes.
        data: Where the images are; a recipe may do without.
        out: Folder to write to.
        options: Those of the command; None or empty where they are not given.

    Raises:
        ValueError: ``what`` is neither, a kind is given no data, or a recipe an option that belongs to kinds.
    """
    given = {part: value for part, value in options.items() if value is not None and value != ()}
    of_both = {part: given.pop(part) for part in _OF_BOTH if part in given}
    devices = given.get("devices", "auto")
    hardware = {part: given.pop(part) for part in _HARDWARE if part in given}
    of_both["hardware"] = Hardware(**{**hardware, "devices": int(devices) if devices.isdigit() else devices})
    if what in KINDS:
        if data is None:
            raise ValueError(f"{what} needs images: --data FOLDER, or --data FILE.csv")
        given["arguments"] = parse_arguments(given.get("arguments", ()))
        return train_kind(what, data, out, **given, **of_both)
    if what not in RECIPES:
        raise ValueError(f"no kind or recipe {what!r}; known are {sorted(KINDS)} and {sorted(RECIPES)}")
    if given:
        raise ValueError(f"{what} is a recipe, and {_as_option(min(given))} belongs to {', '.join(KINDS)}")
    return run.train(what, data, out, **of_both)


def parse_arguments(texts: Iterable[str]) -> dict[str, Any]:
    r"""Arguments of an architecture from ``NAME=VALUE``, where VALUE is JSON.

    Raises:
        ValueError: One is of another form.

    Examples:
        >>> parse_arguments(["steps=[8,8]", "latent=64"])
        {'steps': [8, 8], 'latent': 64}
    """
    arguments = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            arguments[name] = json.loads(value)
        except ValueError as error:
            raise ValueError(f"--argument must be NAME=VALUE such as steps=[8,8], received {text!r}") from error
    return arguments


def _as_option(part: str) -> str:
    return "--" + {"arguments": "argument"}.get(part, part).replace("_", "-")
