r"""Image files as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

__all__ = ["read_images", "write_image"]

MODES = {1: "L", 3: "RGB"}


def read_images(paths: Sequence[str | Path], image_shape: Sequence[int]) -> Tensor:
    r"""Images as float32 (N, C, H, W) in [0, 1], upright, converted to grey or colour and resized to ``image_shape``.

    Args:
        paths: Image files of any kind that Pillow reads.
        image_shape: (C, H, W), C one or three.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: A file is no image, a damaged one, or one with transparent pixels.
    """
    return torch.stack([_read(Path(path), *image_shape) for path in paths])


def write_image(image: Tensor, path: str | Path) -> None:
    r"""Writes one image (C, H, W) in [0, 1] as an 8-bit file of the kind its name says."""
    pixels = image.detach().cpu().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(path)


def _eight_bit(file: Image.Image, path: Path) -> Image.Image:
    # Pillow would clip the values beyond 255, not scale them.
    if file.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(file) / 257).round().astype(np.uint8))
    if file.mode in ("I", "F"):
        raise ValueError(f"{str(path)!r} holds {file.mode!r} values of unknown range: save it with 8 or 16 bits")
    return file


def _opaque(image: Image.Image, path: Path) -> Image.Image:
    # What is seen through transparent pixels is not in the file.
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise ValueError(f"{str(path)!r} has transparent pixels: put it on a background first")
    return image


def _read(path: Path, channels: int, height: int, width: int) -> Tensor:
    if not path.is_file():
        raise FileNotFoundError(f"no image file at {str(path)!r}")
    try:
        with Image.open(path) as file:
            image = _opaque(ImageOps.exif_transpose(_eight_bit(file, path)), path).convert(MODES[channels])
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as an image: {error}") from error
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, dtype=np.float32).reshape(height, width, channels) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
