r"""Image files in a folder per class, read one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from captum_dcf.data.files import read_images

__all__ = ["ClassFolders"]


class ClassFolders(Dataset[tuple[Tensor, int]]):
    r"""The images of a folder, whose sub-folders are named by class number: ``4/one.png`` is of class 4.

    Args:
        folder: The folder.
        image_shape: (C, H, W) to which images are converted and resized.

    Raises:
        FileNotFoundError: There is no such folder, or it has no files in sub-folders with numbers for names.
    """

    def __init__(self, folder: str | Path, image_shape: Sequence[int]) -> None:
        self.image_shape = tuple(image_shape)
        classes = [path for path in sorted(Path(folder).glob("*")) if path.is_dir() and path.name.isdigit()]
        # File managers leave hidden files of their own.
        self.files = [
            file for path in classes for file in sorted(path.iterdir()) if file.is_file() and file.name[0] != "."
        ]
        if not self.files:
            raise FileNotFoundError(f"no images in {str(folder)!r}: expected files in sub-folders such as {folder}/4")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self.files[index]
        return read_images([path], self.image_shape)[0], int(path.parent.name)
