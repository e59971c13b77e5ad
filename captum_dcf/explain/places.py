r"""What is explained, with what: image files, models and generators by name, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from captum_dcf.generators import NormalizingFlowGenerator
from captum_dcf.loading import card_of, load_generator, load_model
from captum_dcf.models.registry import architecture
from captum_dcf.zoo import Card

__all__ = ["checked_device", "generator_and_shape", "image_files", "model_and_names"]

# Of the files in a folder those that are images.
SUFFIXES = ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    r"""The files of some paths, in their order; of a folder all image files in it and below, by name.

    Raises:
        FileNotFoundError: There is nothing at a path, or no image file in a folder.
        ValueError: There is no path at all.
    """
    if not paths:
        raise ValueError("there must be at least one image, received none")
    found: list[Path] = []
    for path in map(Path, paths):
        # Hidden files are not meant: those of macOS beside an image, "._a.png", end like it.
        inside = [one for one in path.rglob("[!.]*") if one.suffix.lower() in SUFFIXES] if path.is_dir() else [path]
        if not inside:
            raise FileNotFoundError(f"no image file in the folder {str(path)!r} or below it; accepted are {SUFFIXES}")
        found += sorted(one for one in inside if one.is_file() or one is path)
    return found


def generator_and_shape(place: str) -> tuple[Any, tuple[int, int, int]]:
    r"""A generator, see :func:`captum_dcf.loading.load_generator`, and the shape (C, H, W) of its images.

    Raises:
        ValueError: It does not say the shape of its images, or they are neither grey nor coloured.
    """
    generator, card = load_generator(place), card_of(place, generator=True)
    shape = _image_shape(generator, card)
    if shape is None:
        where = f"the card of {place!r}" if card else f"{place!r}"
        raise ValueError(f"{where} does not say image_shape, the shape (C, H, W) of the images that it takes")
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(f"{place!r} makes images of shape {tuple(shape)}, accepted are (1, H, W) and (3, H, W)")
    channels, height, width = map(int, shape)
    return generator, (channels, height, width)


def model_and_names(place: str) -> tuple[Callable[..., Any], bool, tuple[str, ...]]:
    r"""A model, whether its card says that it gives values, and the names of classes that the card has.

    Raises:
        ValueError: As :func:`captum_dcf.loading.load_model`.
    """
    model, card = load_model(place), card_of(place)
    if card is None:
        return model, False, ()
    names = getattr(card, "classes", None) or card.training.get("classes") or ()
    return model, architecture(card.architecture).role == "regressor", tuple(map(str, names))


def checked_device(name: str) -> torch.device:
    r"""A device by name.

    Raises:
        ValueError: There is none of that name, or it is not there.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    # Torch without CUDA asserts it.
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device must be cpu, cuda or mps where there is one, received {name!r}: {reason}") from error
    return device


def _image_shape(generator: Any, card: Card | None) -> Sequence[int] | None:
    if card is not None and "image_shape" in card.arguments:
        shape: Sequence[int] = card.arguments["image_shape"]
        return shape
    if getattr(generator, "image_shape", None) is not None:
        return tuple(generator.image_shape)
    if isinstance(generator, NormalizingFlowGenerator):
        # A flow over images says it by decoding a latent.
        size = sum(int(torch.tensor(shape).prod()) for shape in generator.latent_shapes)
        parameter = next(generator.parameters(), torch.empty(()))
        with torch.no_grad():
            return tuple(generator.decode(torch.zeros(1, size).to(parameter)).shape[1:])
    return None
