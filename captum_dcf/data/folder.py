r"""Image files in one sub-folder per class, read one at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from captum_dcf.data.files import read_images

__all__ = ["ClassFolders", "folder_classes", "open_folder"]

# What a tensor of labels holds.
_LARGEST_LABEL = 2**63 - 1


class ClassFolders(Dataset[tuple[Tensor, int]]):
    r"""The images of a folder with one sub-folder per class, ordered by the names of sub-folder and file.

    Every file counts as an image, in folders below those of the classes too; names that begin with a dot are left out.

    Args:
        root: The folder.
        image_shape: (C, H, W) to which images are converted and resized.
        classes: Label of each sub-folder; :func:`folder_classes` of ``root`` by default.

    Attributes:
        files: The files, in order.
        targets: Their labels.
        classes: Label of each sub-folder.

    Raises:
        FileNotFoundError: There is no such folder, or no image in it.
        ValueError: The names of the sub-folders are no classes, or ``classes`` lacks one of them.
    """

    def __init__(self, root: str | Path, image_shape: Sequence[int], classes: Mapping[str, int] | None = None) -> None:
        from torchvision.datasets.folder import make_dataset

        root = Path(root)
        found = folder_classes(root)
        self.image_shape = tuple(image_shape)
        self.classes = found if classes is None else dict(classes)
        unknown = sorted(set(found) - set(self.classes))
        if unknown:
            raise ValueError(f"{str(root)!r} has sub-folders {unknown} beside the classes {sorted(self.classes)}")

        def is_visible(path: str) -> bool:
            return not any(part.startswith(".") for part in Path(path).relative_to(root).parts)

        samples = make_dataset(str(root), self.classes, is_valid_file=is_visible, allow_empty=True)
        if not samples:
            raise _no_images(root)
        self.files = [Path(path) for path, _ in samples]
        self.targets = [label for _, label in samples]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return read_images([self.files[index]], self.image_shape)[0], self.targets[index]


def open_folder(root: str | Path | None, split: str | None, image_shape: Sequence[int] | None) -> ClassFolders:
    r"""The source ``folder``: all of ``root``, or ``root/train`` or ``root/test``, both with the classes of the former.

    Args:
        root: A folder with one sub-folder per class or, where a split is asked for, with ``train`` and ``test`` that
            have one each.
        split: ``"train"``, ``"test"``, or None for all of ``root``.
        image_shape: (C, H, W) to which images are converted and resized.

    Raises:
        FileNotFoundError: There is no such folder, or no image in it.
        ValueError: No ``root`` or ``image_shape`` is given, or the names of the sub-folders are no classes.
    """
    if root is None or image_shape is None:
        raise ValueError(f"a folder of images needs root and image_shape, received {root!r} and {image_shape!r}")
    if split is None:
        return ClassFolders(root, image_shape)
    return ClassFolders(Path(root) / split, image_shape, folder_classes(Path(root) / "train"))


def folder_classes(root: str | Path) -> dict[str, int]:
    r"""The label of each sub-folder: its name where all of them are numbers, else its place in alphabetical order.

    Raises:
        FileNotFoundError: There is no such folder, or it has no sub-folders.
        ValueError: Some names are numbers and others are not, two are the same number, a number is larger than a label
            may be, or the folder holds the splits ``train`` and ``test``.
    """
    root = Path(root)
    names = sorted(path.name for path in root.glob("*") if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise _no_images(root)
    if {"train", "test"} <= set(names):
        raise ValueError(f"{str(root)!r} holds the splits 'train' and 'test': open one of them")
    # Not str.isdigit, which says yes to "²".
    numbers = [name for name in names if re.fullmatch("[0-9]+", name)]
    if not numbers:
        return {name: label for label, name in enumerate(names)}
    if len(numbers) < len(names):
        words = sorted(set(names) - set(numbers))
        raise ValueError(
            f"sub-folders of {str(root)!r} must all be numbers or all be words, received {numbers} and {words}"
        )
    if len({int(name) for name in names}) < len(names):
        raise ValueError(f"two sub-folders of {str(root)!r} are the same number: received {names}")
    too_large = [name for name in names if int(name) > _LARGEST_LABEL]
    if too_large:
        raise ValueError(f"sub-folders of {str(root)!r} must be at most {_LARGEST_LABEL}, received {too_large}")
    return {name: int(name) for name in names}


def _no_images(root: Path) -> FileNotFoundError:
    return FileNotFoundError(
        f"no images in {str(root)!r}: expected files in one sub-folder per class, such as {root}/4"
    )
