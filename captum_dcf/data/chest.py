r"""Chest X-rays of children: bundled samples of PneumoniaMNIST, and the whole of it from a folder.

PneumoniaMNIST of MedMNIST v2 (Yang et al., Scientific Data 2023; CC BY 4.0), from the X-rays of Kermany et al. (Cell
2018). Images come as float32 (N, 1, 28, 28) in [0, 1], labels as int64 (N,): 0 normal, 1 pneumonia.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from captum_dcf.data.bundled import as_images, check_request, read_bundled

__all__ = ["chest", "chest_sample", "open_chest"]

IMAGE_SHAPE = (1, 28, 28)
FILE = "pneumoniamnist.npz"


def chest_sample(train: bool = False) -> tuple[Tensor, Tensor]:
    r"""Bundled X-rays, sorted by class: nothing is downloaded.

    200 of the test set, the first 100 of each class, none of them used to train a model of the zoo; or, to fit an
    oracle or to look for neighbours, 300 of the training set, the first 150 of each class.

    Args:
        train: The training sample instead of the test sample.

    Returns:
        Images, float32 (N, 1, 28, 28) in [0, 1], and labels, int64 (N,), 1 for pneumonia.

    Examples:
        >>> images, labels = chest_sample()
        >>> images.shape, labels.bincount().tolist()
        (torch.Size([200, 1, 28, 28]), [100, 100])
    """
    archive = read_bundled("chest_train_sample.npz" if train else "chest_test_sample.npz")
    return as_images(archive["images"]), torch.from_numpy(archive["labels"]).long()


def chest(root: str | Path, train: bool = True) -> tuple[Tensor, Tensor]:
    r"""The whole training (4,708) or test set (624) of PneumoniaMNIST from a folder.

    Args:
        root: The folder that holds ``pneumoniamnist.npz``, as MedMNIST offers it. Its validation set is not read.
        train: The training set, or the test set.

    Returns:
        Images, float32 (N, 1, 28, 28) in [0, 1], and labels, int64 (N,), 1 for pneumonia.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: It is damaged, or holds something else than such images and their labels.
    """
    path = Path(root) / FILE
    if not path.is_file():
        raise FileNotFoundError(f"no PneumoniaMNIST in {str(root)!r}: expected {FILE}, of https://medmnist.com")
    part = "train" if train else "test"
    try:
        with np.load(path) as archive:
            images, labels = archive[f"{part}_images"], archive[f"{part}_labels"].reshape(-1)
    except Exception as error:  # a damaged archive makes NumPy raise almost anything
        raise ValueError(f"{path} is damaged, or lacks {part}_images or {part}_labels: {error}") from error
    if images.dtype != np.uint8 or images.shape[1:] != IMAGE_SHAPE[1:] or len(images) != len(labels):
        raise ValueError(
            f"{path} must hold bytes (N, 28, 28) and N labels, received {images.dtype} {images.shape} and {len(labels)}"
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"{path} must hold labels 0 and 1, received {np.unique(labels).tolist()}")
    return as_images(images), torch.from_numpy(labels.astype(np.int64))


def open_chest(root: str | Path | None, split: str | None, image_shape: Sequence[int] | None) -> TensorDataset:
    r"""The source ``chest``: the whole of it from ``root``, or the bundled samples without one.

    Raises:
        FileNotFoundError: The folder has no PneumoniaMNIST.
        ValueError: The file is damaged, no split is named, or ``image_shape`` is another than (1, 28, 28).
    """
    check_request("chest", split, image_shape, IMAGE_SHAPE)
    train = split == "train"
    return TensorDataset(*(chest_sample(train) if root is None else chest(root, train)))
