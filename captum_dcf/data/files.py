r"""Image files as tensors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

__all__ = ["read_images", "write_image"]

MODES = {1: "L", 3: "RGB"}


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
