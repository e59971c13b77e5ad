from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captum_dcf.data.files import count_frames, open_image, read_bytes, read_images


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


COLOURS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "name",
    ["cmyk.tiff", "cmyk.jpg", "palette.png", "palette.gif", "opaque.png", "alpha palette.tiff", "palette, opaque.png"],
)
def test_colours_are_read_however_they_are_stored(tmp_path: Path, name: str):
    mode = {"cmyk": "CMYK", "opaque": "RGBA"}.get(name.split(".")[0], "RGB")
    image = Image.fromarray(COLOURS).convert(mode)
    if "palette" in name:
        image = image.quantize(256)
    if "alpha" in name:
        image = image.convert("PA")
    said = {"cmyk.jpg": {"quality": 100, "subsampling": 0}, "palette, opaque.png": {"transparency": b"\xff" * 256}}
    image.save(tmp_path / name, **said.get(name, {}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read, grey = open_image(tmp_path / name), read_images([tmp_path / name], (1, 6, 8))
    assert read.mode == "RGB"
    np.testing.assert_allclose(np.asarray(read, dtype=float), COLOURS, atol=2)
    luma = COLOURS @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(255 * grey[0, 0].numpy(), luma, atol=2.6)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_is_read_however_it_is_stored(tmp_path: Path, mode: str):
    values = 255 * (COLOURS[..., 0] > 127).astype(np.uint8)
    Image.fromarray(values).convert(mode).save(tmp_path / "grey.png")
    read = open_image(tmp_path / "grey.png")
    assert read.mode == "L"
    np.testing.assert_array_equal(np.asarray(read), values)


def png(values: np.ndarray, clear: int | None = None) -> bytes:
    r"""A PNG of 16 bits a channel, (H, W, C), and of a level that is transparent, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = values.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    level = b"" if clear is None else chunk(b"tRNS", struct.pack(">H", clear))
    data = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + level + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_of_any_channels_are_scaled(tmp_path: Path, channels: int):
    values = np.random.default_rng(1).integers(0, 65536, (3, 5, channels))
    if channels in (2, 4):
        values[..., -1] = 65535
    (tmp_path / "deep.png").write_bytes(png(values))
    kept = values[..., : 1 if channels < 3 else 3] / 65535
    read = read_images([tmp_path / "deep.png"], (3, 3, 5))[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(read, np.broadcast_to(kept, (3, 5, 3)), atol=1.01 / 255)


@pytest.mark.parametrize("name", ["turned.png", "turned.tiff", "packed.tiff"])
@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 1), (np.uint16, 257)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(tmp_path: Path, orientation: int, dtype: type, scale: int, name: str):
    upright = np.arange(12, dtype=np.uint8).reshape(3, 4)
    # By the definition of the tag, row 0 of what is stored is the visual top (1, 2), bottom (3, 4), left (5, 8) or
    # right side (6, 7), and column 0 the left (1, 4), right (2, 3), top (5, 6) or bottom (7, 8).
    turned = upright if orientation < 5 else upright.T
    rows = -1 if orientation in (3, 4, 6, 7) else 1
    columns = -1 if orientation in (2, 3, 7, 8) else 1
    image = Image.fromarray((turned[::rows, ::columns].astype(dtype) * scale).copy())
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / name, exif=exif, **({"compression": "tiff_lzw"} if name.startswith("packed") else {}))
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / name)), upright)


def test_one_grey_level_may_stand_for_transparent(tmp_path: Path):
    values = (5000 * np.arange(12)).astype(np.uint16).reshape(3, 4)
    for level, is_clear in ((5000, True), (5001, False)):
        (tmp_path / "clear.png").write_bytes(png(values[..., None], level))
        if is_clear:
            with pytest.raises(ValueError, match=r"clear\.png'.*transparent"):
                open_image(tmp_path / "clear.png")
        else:
            assert open_image(tmp_path / "clear.png").size == (4, 3)


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "empty, 0 bytes"), (b"no image", "no format"), (b"cut", "truncated")]
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path: Path, content: bytes, said: str):
    Image.fromarray(COLOURS).save(tmp_path / "broken.png")
    whole = (tmp_path / "broken.png").read_bytes()
    (tmp_path / "broken.png").write_bytes(whole[: len(whole) // 2] if content == b"cut" else content)
    with pytest.raises(ValueError, match=rf"broken\.png'.*{said}"):
        open_image(tmp_path / "broken.png")


def test_bytes_are_the_values_of_an_image(tmp_path: Path):
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    values = read_bytes(tmp_path / "a.png", (3, 6, 8))
    assert values.dtype == torch.uint8
    np.testing.assert_array_equal(values.permute(1, 2, 0).numpy(), COLOURS)
    torch.testing.assert_close(read_images([tmp_path / "a.png"], (3, 6, 8))[0] * 255, values.float())


def test_frames_are_counted(tmp_path: Path):
    black, white = (Image.new("L", (4, 4), value) for value in (0, 255))
    black.save(tmp_path / "one.png")
    for name in ("pages.tiff", "moves.gif", "moves.png", "moves.webp"):
        black.save(tmp_path / name, save_all=True, append_images=[white])
        assert count_frames(tmp_path / name) == 2
        assert np.asarray(open_image(tmp_path / name)).max() == 0
    assert count_frames(tmp_path / "one.png") == 1
    # Cameras put a preview beside a photograph.
    black.convert("RGB").save(tmp_path / "photo.mpo", save_all=True, append_images=[white.convert("RGB")])
    assert count_frames(tmp_path / "photo.mpo") == 1
