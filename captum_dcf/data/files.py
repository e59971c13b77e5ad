r"""Image files as tensors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

__all__ = ["count_frames", "open_image", "read_bytes", "read_images", "write_image"]

MODES = {1: "L", 3: "RGB"}
GREY = ("1", "L", "LA", "La")
TRANSPARENT = "it has transparent pixels, put it on a background first"


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
    return torch.stack([read_bytes(path, image_shape) for path in paths]).float() / 255


def write_image(image: Tensor, path: str | Path) -> None:
    r"""Writes one image (C, H, W) in [0, 1] as an 8-bit file of the kind its name says."""
    pixels = image.detach().cpu().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(path)


def read_bytes(path: str | Path, image_shape: Sequence[int], crop: bool = False) -> Tensor:
    r"""One image as uint8 (C, H, W); :func:`read_images` gives these values divided by 255, and raises the same.

    With ``crop`` it is first cut to the largest part in its middle that has the proportions of ``image_shape``.
    """
    channels, height, width = image_shape
    image = open_image(path).convert(MODES[channels])
    if crop:
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    elif image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.array(image).reshape(height, width, channels)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def open_image(path: str | Path) -> Image.Image:
    r"""An image file at its own size: upright, decoded, with 8 bits a channel, in Pillow's mode "L" or "RGB".

    Values of 16 bits are scaled; palettes, CMYK and other colour spaces become RGB by Pillow's formulas, without colour
    profiles; opaque alpha channels are dropped.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: As :func:`read_images`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no image file at {str(path)!r}")
    if path.stat().st_size == 0:
        raise ValueError(f"{str(path)!r} cannot be read as an image: it is empty, 0 bytes")
    try:
        with warnings.catch_warnings():
            # Pillow warns of large files, and refuses those of twice that size by itself.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # Pillow 11 to 13 garble a turned TIFF that they map into memory, as they do where they know its path.
            with path.open("rb") as stream, Image.open(stream) as file:
                image = _opaque(_eight_bit(file))
                return image.convert("L" if image.mode in GREY else "RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(f"{str(path)!r} is too large: {error}. Make it smaller first") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{str(path)!r} cannot be read as an image: it is of no format that Pillow knows") from error
    # A damaged file makes Pillow raise almost anything.
    except Exception as error:
        raise ValueError(f"{str(path)!r} cannot be read as an image: {error}") from error


def count_frames(path: str | Path) -> int:
    r"""How many frames or pages an image file has; 1 for photographs that hold another one beside them (MPO)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as file:
            return 1 if file.format == "MPO" else getattr(file, "n_frames", 1)


def _eight_bit(file: Image.Image) -> Image.Image:
    """The image upright, with 8 bits a channel."""
    # A PNG has at most 16 bits; before Pillow 11 its values come as "I".
    has_16_bits = file.mode.startswith("I;16") or (file.mode == "I" and file.format == "PNG")
    if file.mode in ("I", "F") and not has_16_bits:
        raise ValueError(f"it holds {file.mode!r} values of unknown range, save it with 8 or 16 bits")
    image = ImageOps.exif_transpose(file)
    if not has_16_bits:
        return image
    values = np.asarray(image)
    # A PNG may name one grey level that stands for transparent.
    if (values == file.info.get("transparency", -1)).any():
        raise ValueError(TRANSPARENT)
    # Pillow would clip the values beyond 255, not scale them.
    return Image.fromarray((values / 257).round().astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    with_alpha = image.convert("RGBA")
    # What is seen through transparent pixels is not in the file.
    if with_alpha.getchannel("A").getextrema() != (255, 255):
        raise ValueError(TRANSPARENT)
    return image if image.mode in GREY else with_alpha
