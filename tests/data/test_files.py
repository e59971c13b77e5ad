from __future__ import annotations

import warnings
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
    with pytest.raises(ValueError, match=r"floats\.tiff'.*'F'.*8 or 16 bits"):
        read_images([tmp_path / "floats.tiff"], (1, 4, 4))


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 1), (np.uint16, 257)])
def test_a_photograph_is_read_upright(tmp_path: Path, dtype: type, scale: int):
    values = scale * np.arange(12, dtype=dtype).reshape(3, 4)
    image = Image.fromarray(values)
    exif = image.getexif()
    exif[0x0112] = 6  # Orientation: to be turned by 90 degrees, clockwise.
    image.save(tmp_path / "turned.png", exif=exif)
    [read] = read_images([tmp_path / "turned.png"], (1, 4, 3))
    np.testing.assert_allclose(255 * read[0].numpy(), np.rot90(values / scale, -1), atol=1e-4)


def test_a_large_file_is_read_and_one_too_large_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.fromarray(np.full((10, 10), 255, dtype=np.uint8)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (read_images([tmp_path / "large.png"], (1, 4, 4)) == 1).all()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(ValueError, match=r"large\.png' is too large.*100 pixels"):
        read_images([tmp_path / "large.png"], (1, 4, 4))


def test_a_file_that_cannot_be_converted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def convert(image: Image.Image, mode: str) -> Image.Image:
        raise ValueError(f"conversion from {image.mode} to {mode} not supported")

    Image.new("LAB", (4, 4)).save(tmp_path / "lab.tiff")
    monkeypatch.setattr(Image.Image, "convert", convert)  # newer versions of Pillow than the oldest raise it
    with pytest.raises(ValueError, match=r"lab\.tiff'.*LAB"):
        read_images([tmp_path / "lab.tiff"], (3, 4, 4))


def test_the_first_of_several_frames_is_read(tmp_path: Path):
    black, white = (Image.new("L", (4, 4), value) for value in (0, 255))
    black.save(tmp_path / "pages.tiff", save_all=True, append_images=[white])
    assert (read_images([tmp_path / "pages.tiff"], (1, 4, 4)) == 0).all()


def test_transparent_pixels_are_refused(tmp_path: Path):
    pixels = np.full((4, 4, 4), 255, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "opaque.png")
    assert (read_images([tmp_path / "opaque.png"], (1, 4, 4)) == 1).all()
    pixels[0, 0, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    with pytest.raises(ValueError, match=r"clear\.png'.*transparent.*background"):
        read_images([tmp_path / "clear.png"], (1, 4, 4))
