r"""Handwritten digits: bundled samples of MNIST, and the whole of it from a folder.

MNIST: Yann LeCun and Corinna Cortes, CC BY-SA 3.0. Images come as float32 (N, 1, 28, 28) in [0, 1], labels as
int64 (N,).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from captum_dcf.data.bundled import as_images, check_request, read_bundled

__all__ = ["mnist", "mnist_sample", "open_mnist"]

IMAGE_SHAPE = (1, 28, 28)


def mnist_sample(train: bool = False) -> tuple[Tensor, Tensor]:
    r"""Bundled digits, sorted by class: nothing is downloaded.

    1,000 of MNIST's test set, the first 100 of each class, none of them used to train a model of the zoo; or, to fit an
    oracle or to look for neighbours, 2,000 of the training set, the first 200 of each class.

    Args:
        train: The training sample instead of the test sample.

    Returns:
        Images, float32 (N, 1, 28, 28) in [0, 1], and labels, int64 (N,).

    Examples:
        >>> images, labels = mnist_sample()
        >>> fours = images[labels == 4]
        >>> fours.shape
        torch.Size([100, 1, 28, 28])
    """
    name = "mnist_train_sample.npz" if train else "mnist_test_sample.npz"
    archive = read_bundled(name)
    return as_images(archive["images"]), torch.from_numpy(archive["labels"]).long()


def mnist(root: str | Path, train: bool = True) -> tuple[Tensor, Tensor]:
    r"""The whole training (60,000) or test set (10,000) of MNIST from a torchvision root; needs torchvision.

    Args:
        root: The folder that holds ``MNIST/raw`` with the four idx files, as ``torchvision.datasets.MNIST`` writes it.
        train: The training set, or the test set.

    Returns:
        Images, float32 (N, 1, 28, 28) in [0, 1], and labels, int64 (N,).

    Raises:
        FileNotFoundError: The folder has no complete MNIST.
        ValueError: A file is damaged, or holds something else than digits and their labels.
    """
    from torchvision.datasets.mnist import read_image_file, read_label_file

    raw = Path(root) / "MNIST" / "raw"
    for part in ("train", "t10k"):
        if not (_images_path(raw, part).is_file() and _labels_path(raw, part).is_file()):
            raise FileNotFoundError(
                f"no MNIST in {str(root)!r}: expected the four idx files in {raw}; "
                f"torchvision.datasets.MNIST({str(root)!r}, download=True) puts them there"
            )
    part = "train" if train else "t10k"
    images = _read(_images_path(raw, part), read_image_file)
    labels = _read(_labels_path(raw, part), read_label_file)
    if tuple(images.shape[1:]) != IMAGE_SHAPE[1:]:
        raise ValueError(f"{_images_path(raw, part)} must hold images of 28×28, received {tuple(images.shape[1:])}")
    if len(labels) != len(images):
        raise ValueError(f"{raw} must have one label per image, received {len(labels)} for {len(images)} of {part}")
    if labels.max() > 9:
        raise ValueError(f"{_labels_path(raw, part)} must hold labels from 0 to 9, received {int(labels.max())}")
    return as_images(images.numpy()), labels


def open_mnist(root: str | Path | None, split: str | None, image_shape: Sequence[int] | None) -> TensorDataset:
    r"""The source ``mnist``: the whole of it from ``root``, or the bundled samples without one.

    Raises:
        FileNotFoundError: The folder has no complete MNIST.
        ValueError: A file is damaged, no split is named, or ``image_shape`` is another than (1, 28, 28).
    """
    check_request("MNIST", split, image_shape, IMAGE_SHAPE)
    train = split == "train"
    return TensorDataset(*(mnist_sample(train) if root is None else mnist(root, train)))


def _images_path(raw: Path, part: str) -> Path:
    return raw / f"{part}-images-idx3-ubyte"


def _labels_path(raw: Path, part: str) -> Path:
    return raw / f"{part}-labels-idx1-ubyte"


def _read(path: Path, reader: Callable[[str], Any]) -> Tensor:
    # torchvision's readers raise whatever a damaged file leads them to, bare assertions among it.
    try:
        values: Tensor = reader(str(path))
    except OSError:
        raise
    except Exception as error:
        raise ValueError(
            f"{path} is damaged or no idx file ({path.stat().st_size} bytes): {type(error).__name__} {error}".rstrip()
        ) from error
    return values
