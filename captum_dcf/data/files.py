r"""Image files as tensors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

__all__ = ["image_files", "image_size", "read_images", "write_image"]

MODES = {1: "L", 3: "RGB"}
# Of the files in a folder those that are images, as torchvision's ImageFolder has it.
SUFFIXES = ".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"
# The tag of Exif that says how an image is turned.
ORIENTATION = 0x0112


def read_images(paths: Sequence[str | Path], image_shape: Sequence[int]) -> Tensor:
    r"""Images as float32 (N, C, H, W) in [0, 1], upright, converted to grey or colour and resized to ``image_shape``.

    Args:
        paths: Image files of any kind that Pillow reads. Of a file with several frames or pages, the first is read.
        image_shape: (C, H, W), C one or three.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: A file is no image, a damaged one, one of more pixels than Pillow opens (179 million), one with
            transparent pixels, or one whose values have no known range.
    """
    return torch.stack([_read(Path(path), *image_shape) for path in paths])


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    r"""The files of some paths, in their order; of a folder all image files in it and below, by name.

    Raises:
        FileNotFoundError: There is nothing at a path.
        ValueError: There is no image file in a folder, or no path at all.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            if not path.is_file():
                raise FileNotFoundError(f"no image file at {str(path)!r}")
            found.append(path)
            continue
        # Hidden files are not meant: those of macOS beside an image, "._a.png", end like it.
        inside = [one for one in path.rglob("[!.]*") if one.suffix.lower() in SUFFIXES and one.is_file()]
        if not inside:
            raise ValueError(f"no image file in the folder {str(path)!r}, nor below it")
        found += sorted(inside)
    if not found:
        raise ValueError("there must be at least one image, received none")
    return found


def image_size(path: str | Path) -> tuple[int, int]:
    r"""Height and width of an image file as it is seen, upright.

    Raises:
        ValueError: The file is no image.
    """
    try:
        with Image.open(path) as file:
            width, height = file.size
            # The values 5 to 8 turn it by a quarter.
            return (width, height) if file.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8) else (height, width)
    except Exception as error:
        raise ValueError(f"{str(path)!r} cannot be read as an image: {error}") from error


def write_image(image: Tensor, path: str | Path) -> None:
    r"""Writes one image (C, H, W) in [0, 1] as an 8-bit file of the kind its name says."""
    pixels = image.detach().cpu().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(path)


def _read(path: Path, channels: int, height: int, width: int) -> Tensor:
    if not path.is_file():
        raise FileNotFoundError(f"no image file at {str(path)!r}")
    try:
        with warnings.catch_warnings():
            # Pillow warns of large files, and refuses those of twice that size by itself.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                image = _opaque(_eight_bit(file)).convert(MODES[channels])
    except Image.DecompressionBombError as error:
        raise ValueError(f"{str(path)!r} is too large: {error}. Make it smaller first") from error
    # A damaged file makes Pillow raise almost anything.
    except Exception as error:
        raise ValueError(f"{str(path)!r} cannot be read as an image: {error}") from error
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, dtype=np.float32).reshape(height, width, channels) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _eight_bit(file: Image.Image) -> Image.Image:
    """The image upright, with 8 bits a channel."""
    # A PNG has at most 16 bits; before Pillow 11 its values come as "I".
    has_16_bits = file.mode.startswith("I;16") or (file.mode == "I" and file.format == "PNG")
    if file.mode in ("I", "F") and not has_16_bits:
        raise ValueError(f"it holds {file.mode!r} values of unknown range, save it with 8 or 16 bits")
    image = ImageOps.exif_transpose(file)
    # Pillow would clip the values beyond 255, not scale them.
    return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8)) if has_16_bits else image


def _opaque(image: Image.Image) -> Image.Image:
    # What is seen through transparent pixels is not in the file.
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise ValueError("it has transparent pixels, put it on a background first")
    return image
