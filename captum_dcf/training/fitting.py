r"""One line per kind of model: from a folder of images to a model that is ready to be used."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from torch import nn

from captum_dcf.generators import Generator
from captum_dcf.training.kinds import train_kind
from captum_dcf.zoo.store import load

__all__ = ["fit_autoencoder", "fit_classifier", "fit_flow", "fit_gan", "fit_regressor", "fit_vae"]


def fit_flow(
    data: str | Path,
    size: int | Sequence[int] = 64,
    minutes: float | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Generator:
    r"""Trains a Glow on a folder of images: exact coordinates with a density, the best there is for a search.

    Args:
        data: A folder of images, one with a sub-folder per class, or a CSV file that names them.
        size: Height and width to which images are resized, one number for both; divisible by two several times.
        minutes: How long it is to take; say ``epochs=`` instead for passes over the images.
        out: Folder for weights, card, checkpoint, table and pictures, where an interrupted training goes on;
            temporary by default, and gone at the end.
        options: Further ones of :func:`captum_dcf.training.kinds.train_kind`, such as ``channels``, ``batch_size`` or
            ``arguments``.

    Returns:
        The generator on the CPU, in evaluation mode, with its support.

    Raises:
        ValueError: Files are broken (each is named), there are none of them, or they do not fit.
    """
    return cast(Generator, _fitted("glow", data, size, minutes, out, options))


def fit_vae(
    data: str | Path,
    size: int | Sequence[int] = 64,
    minutes: float | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Generator:
    r"""Trains a variational autoencoder on a folder of images; arguments as :func:`fit_flow` takes them."""
    return cast(Generator, _fitted("vae", data, size, minutes, out, options))


def fit_gan(
    data: str | Path,
    size: int | Sequence[int] = 64,
    minutes: float | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Generator:
    r"""Trains a generative adversarial network on a folder of images; arguments as :func:`fit_flow` takes them."""
    return cast(Generator, _fitted("gan", data, size, minutes, out, options))


def fit_autoencoder(
    data: str | Path,
    size: int | Sequence[int] = 64,
    minutes: float | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Generator:
    r"""Trains an autoencoder on a folder of images; arguments as :func:`fit_flow` takes them."""
    return cast(Generator, _fitted("autoencoder", data, size, minutes, out, options))


def fit_classifier(
    data: str | Path,
    size: int | Sequence[int] = 64,
    minutes: float | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> nn.Module:
    r"""Trains a classifier, (N, C, H, W) in [0, 1] to logits, on images of classes.

    Classes are the sub-folders of ``data``, or what ``column=`` of a CSV file says. Other arguments as :func:`fit_flow`
    takes them.
    """
    return _fitted("classifier", data, size, minutes, out, options)


def fit_regressor(
    data: str | Path,
    size: int | Sequence[int] = 64,
    minutes: float | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> nn.Module:
    r"""Trains a regressor of the values in a ``column=`` of a CSV file; arguments as :func:`fit_flow` takes them."""
    return _fitted("regressor", data, size, minutes, out, options)


def _fitted(
    kind: str,
    data: str | Path,
    size: int | Sequence[int],
    minutes: float | None,
    out: str | Path | None,
    options: dict[str, Any],
) -> nn.Module:
    if out is None:
        with tempfile.TemporaryDirectory() as folder:
            return _fitted(kind, data, size, minutes, folder, options)
    card = train_kind(kind, data, out, size, minutes=minutes, **options)
    return cast(nn.Module, load(card.name, out))
