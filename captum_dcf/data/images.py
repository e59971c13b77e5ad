r"""Images of one's own as a data set: a folder, or a CSV file that names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from captum_dcf.data.files import MODES, read_bytes
from captum_dcf.data.listing import Kind, check_split, list_images

__all__ = ["Images", "open_images"]

# Bytes of the images, at the size they are asked for, up to which they stay in memory.
MOST_BYTES = 2_000_000_000


class Images(Dataset[tuple[Tensor, Any]]):
    r"""Image files and their labels: pairs of an image, float32 (C, H, W) in [0, 1], and an int or a float.

    A file is decoded the first time it is asked for and stays in memory as uint8, where all of them together take at
    most 2 GB. The workers of a ``DataLoader`` keep nothing, since each of them would hold all of it; they are of use
    for larger sets.

    Args:
        files: Image files.
        targets: Their labels.
        classes: Names of the classes, those of label 0, 1, ...; None where the labels are values.
        image_shape: (C, H, W) to which images are converted and resized.
        crop: Cut images to the proportions of ``image_shape`` first, around their middle, instead of distorting them.

    Attributes:
        files: As given, as a list.
        targets: As given, as a list.
        classes: As given.
        image_shape: As given, as a tuple.

    Raises:
        ValueError: ``image_shape`` is none, or there is another number of files than of targets.
    """

    def __init__(
        self,
        files: Sequence[Path],
        targets: Sequence[int] | Sequence[float],
        classes: tuple[str, ...] | None,
        image_shape: Sequence[int],
        crop: bool = False,
    ) -> None:
        if len(image_shape) != 3 or image_shape[0] not in MODES or min(image_shape) < 1:
            raise ValueError(
                f"image_shape must be (C, H, W) of 1 or 3 channels and 1 pixel or more, received {tuple(image_shape)}"
            )
        if len(files) != len(targets):
            raise ValueError(f"there must be one target a file, received {len(targets)} for {len(files)}")
        self.files = list(files)
        self.targets = list(targets)
        self.classes = classes
        self.image_shape = tuple(image_shape)
        self._crop = crop
        self._pixels: Tensor | None = None
        self._is_read: Tensor | None = None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self._bytes(range(len(self))[index]).float() / 255, self.targets[index]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None, "_is_read": None}

    def _bytes(self, index: int) -> Tensor:
        if self._pixels is not None and self._is_read is not None and self._is_read[index]:
            return self._pixels[index]
        image = read_bytes(self.files[index], self.image_shape, self._crop)
        if get_worker_info() is None and len(self) * image.numel() <= MOST_BYTES:
            if self._pixels is None or self._is_read is None:
                self._pixels = torch.empty(len(self), *self.image_shape, dtype=torch.uint8)
                self._is_read = torch.zeros(len(self), dtype=torch.bool)
            self._pixels[index] = image
            self._is_read[index] = True
        return image


def open_images(
    root: str | Path | None,
    split: str | None,
    image_shape: Sequence[int] | None,
    column: str | None = None,
    group: str | None = None,
    holdout: float = 0.1,
    labels: Kind = None,
) -> Images:
    r"""The source ``images``: a folder or a CSV file of images, and a fixed part of them to test with.

    ``root`` is one of

    - a folder with one sub-folder of images per class. Names that are whole numbers up to 999 are their labels, words
      are numbered in alphabetical order;
    - a flat folder of images, all of label 0;
    - a folder with ``train`` and ``test`` (or ``val``), each of them one of the above;
    - a CSV file with a header, in UTF-8. File names, relative to it, stand in its column ``file``, ``filename``,
      ``image`` or ``path``, else in its first. Where a column is asked for, the folder with that one CSV file will do.

    Files whose names end as those of no image format do, and names that begin with a dot, are left out of a folder.

    Where the folder does not say which images to test with, whole groups of them are held out by a hash of the group's
    name, so that a group is on the same side on every machine, in any order and after others were added. Images without
    a ``group`` are one each, named by their path relative to ``root``.

    Args:
        root: The folder or the CSV file.
        split: ``"train"``, ``"test"``, or None for both.
        image_shape: (C, H, W), C one (grey) or three, to which images are converted and resized, not cropped.
        column: Column of the CSV file that holds the labels; without one, all are 0. Words are classes. Numbers are
            classes where they are 0 to k - 1, each of them there and k at most 20, and else values.
        group: Column of the CSV file that says what belongs together, such as the patient.
        holdout: Share of the groups to hold out, about, between 0 and 1; at least one is held out and one is not.
        labels: ``"classes"`` or ``"value"``, where the labels must be of that kind and differ.

    Raises:
        FileNotFoundError: There is no such folder or file, or no image in it.
        ValueError: No ``root`` or ``image_shape`` is given, or they, the layout, the CSV file or another argument are
            none that is accepted.
    """
    if root is None or image_shape is None:
        raise ValueError(f"images need root and image_shape, received {root!r} and {image_shape!r}")
    if split not in ("train", "test", None):
        raise ValueError(f"split must be 'train', 'test' or None, received {split!r}")
    listing = list_images(root, column, group, labels, holdout)
    if split is not None:
        check_split(listing, root, labels)
    chosen = [
        place for place, held_out in enumerate(listing.held_out) if split is None or held_out == (split == "test")
    ]
    files, targets = [listing.files[place] for place in chosen], [listing.targets[place] for place in chosen]
    return Images(files, targets, listing.classes, image_shape)
