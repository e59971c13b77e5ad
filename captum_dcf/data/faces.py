r"""Drawn faces with known attributes: bundled samples of them, and the whole set from a folder.

6,000 faces put together at random from the parts of Open Peeps (Pablo Stanley, CC0 1.0). Hair colour, smile, glasses
and beard were drawn independently of each other, so that what a change of one of them takes with it is no property of
the data. Images come as float32 (N, 3, 64, 64) in [0, 1], labels as int64 (N,): 0 not blond, 1 blond.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

from captum_dcf.data.bundled import as_images, check_request, read_bundled

__all__ = ["faces", "faces_attributes", "faces_sample", "open_faces"]

IMAGE_SHAPE = (3, 64, 64)
# Of the 6,000 images, the first 5,000 are to train with.
TRAIN, ALL = 5000, 6000
TABLE, ARCHIVE = "attributes.csv", "images_png.zip"
ATTRIBUTES = ("blond", "smile", "glasses", "beard")


def faces_sample(train: bool = False) -> tuple[Tensor, Tensor]:
    r"""Bundled faces, sorted by class: nothing is downloaded.

    300 of the test part, the first 200 that are not blond and the first 100 that are, none of them used to train a
    model of the zoo; or, to fit an oracle or to look for neighbours, 400 of the training part, the first 200 of each
    class.

    Args:
        train: The training sample instead of the test sample.

    Returns:
        Images, float32 (N, 3, 64, 64) in [0, 1], and labels, int64 (N,), 1 for blond.

    Examples:
        >>> images, labels = faces_sample()
        >>> images.shape, labels.bincount().tolist()
        (torch.Size([300, 3, 64, 64]), [200, 100])
    """
    archive = read_bundled(_sample_name(train))
    return as_images(archive["images"]), torch.from_numpy(archive["blond"]).long()


def faces_attributes(train: bool = False) -> dict[str, Tensor]:
    r"""What the bundled faces were drawn with, in the order of :func:`faces_sample`.

    Args:
        train: Those of the training sample instead of the test sample.

    Returns:
        ``"blond"``, ``"smile"``, ``"glasses"`` and ``"beard"``, int64 (N,), 0 or 1; and ``"hair"``, float32 (N, 3), the
        colour of the hair in RGB, in [0, 1].

    Examples:
        >>> attributes = faces_attributes()
        >>> sorted(attributes), attributes["hair"].shape
        (['beard', 'blond', 'glasses', 'hair', 'smile'], torch.Size([300, 3]))
    """
    archive = read_bundled(_sample_name(train))
    known = {name: torch.from_numpy(archive[name]).long() for name in ATTRIBUTES}
    return {**known, "hair": torch.from_numpy(archive["hair"]).float() / 255}


def faces(root: str | Path, train: bool = True) -> tuple[Tensor, Tensor]:
    r"""The whole training part (5,000) or test part (1,000) of the faces from a folder.

    Args:
        root: The folder that holds ``attributes.csv`` and, beside it, the images ``00000.png``, ``00001.png``, ..., as
            files or in ``images_png.zip``.
        train: The training part, or the test part.

    Returns:
        Images, float32 (N, 3, 64, 64) in [0, 1], and labels, int64 (N,), 1 for blond.

    Raises:
        FileNotFoundError: The table, or an image, is not there.
        ValueError: The table has not the columns and rows expected, or an image is damaged or of another size.
    """
    table = Path(root) / TABLE
    if not table.is_file():
        raise FileNotFoundError(f"no faces in {str(root)!r}: expected {TABLE}, and {ARCHIVE} or 00000.png, ...")
    labels = _labels(table)
    part = range(TRAIN) if train else range(TRAIN, ALL)
    return as_images(_pixels(Path(root), part)), labels[part.start : part.stop]


def open_faces(root: str | Path | None, split: str | None, image_shape: Sequence[int] | None) -> TensorDataset:
    r"""The source ``faces``: the whole of it from ``root``, or the bundled samples without one.

    Raises:
        FileNotFoundError: The folder has no complete set of faces.
        ValueError: A file is damaged, no split is named, or ``image_shape`` is another than (3, 64, 64).
    """
    check_request("faces", split, image_shape, IMAGE_SHAPE)
    train = split == "train"
    return TensorDataset(*(faces_sample(train) if root is None else faces(root, train)))


def _sample_name(train: bool) -> str:
    return "faces_train_sample.npz" if train else "faces_test_sample.npz"


def _labels(table: Path) -> Tensor:
    """Whether each of all faces is blond, int64 (6000,)."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        blond = {int(row["i"]): int(row["blond"]) for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{table} must have the columns i and blond, of whole numbers: {error!r}") from error
    if sorted(blond) != list(range(ALL)) or not set(blond.values()) <= {0, 1}:
        raise ValueError(f"{table} must say blond, 0 or 1, for each i from 0 to {ALL - 1}, received {len(rows)} rows")
    return torch.tensor([blond[number] for number in range(ALL)])


def _pixels(root: Path, part: range) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    names = [f"{number:05d}.png" for number in part]
    archive = root / ARCHIVE
    if not archive.is_file():
        missing = [name for name in names if not (root / name).is_file()]
        if missing:
            raise FileNotFoundError(f"{root} has no {ARCHIVE}, and lacks {len(missing)} images, such as {missing[0]}")
        return np.stack([_decoded((root / name).read_bytes(), str(root / name)) for name in names])
    try:
        with ZipFile(archive) as images:
            return np.stack([_decoded(images.read(name), f"{name} of {archive}") for name in names])
    except KeyError as error:
        raise FileNotFoundError(f"{archive} lacks an image: {error}") from error
    except BadZipFile as error:
        raise ValueError(f"{archive} is damaged or no zip file: {error}") from error


def _decoded(content: bytes, where: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise ValueError(f"{where} cannot be read as an image: {error}") from error
    if pixels.shape != (64, 64, 3):
        raise ValueError(f"{where} must have 64×64 pixels, received {pixels.shape[1]}×{pixels.shape[0]}")
    return pixels
