from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captum_dcf.data.files import read_images


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path):
    values = np.linspace(0, 65535, 16).round().astype(np.uint16).reshape(4, 4)
    Image.fromarray(values).save(tmp_path / "deep.png")
    [image] = read_images([tmp_path / "deep.png"], (1, 4, 4))
    np.testing.assert_allclose(image[0].numpy(), values / 65535, atol=0.5 / 255 + 1e-6)


def test_values_of_unknown_range_are_refused(tmp_path: Path):
    Image.fromarray(np.full((4, 4), 7.5, dtype=np.float32)).save(tmp_path / "floats.tiff")
    with pytest.raises(ValueError, match="'F' values of unknown range"):
        read_images([tmp_path / "floats.tiff"], (1, 4, 4))


def test_a_photograph_is_read_upright(tmp_path: Path):
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # Orientation: to be turned by 90 degrees, clockwise.
    image.save(tmp_path / "turned.png", exif=exif)
    [read] = read_images([tmp_path / "turned.png"], (1, 4, 3))
    np.testing.assert_allclose(255 * read[0].numpy(), np.rot90(np.asarray(image), -1), atol=1e-4)


def test_transparent_pixels_are_refused(tmp_path: Path):
    pixels = np.full((4, 4, 4), 255, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "opaque.png")
    assert (read_images([tmp_path / "opaque.png"], (1, 4, 4)) == 1).all()
    pixels[0, 0, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    with pytest.raises(ValueError, match=r"clear.png' has transparent pixels: put it on a background first"):
        read_images([tmp_path / "clear.png"], (1, 4, 4))
