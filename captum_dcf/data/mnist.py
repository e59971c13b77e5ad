r"""Handwritten digits: bundled samples of MNIST, and the whole of it from a folder.

MNIST: Yann LeCun and Corinna Cortes, CC BY-SA 3.0. Images come as float32 (N, 1, 28, 28) in [0, 1], labels as
int64 (N,).
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["mnist", "mnist_sample"]


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
    with as_file(files("captum_dcf.data") / name) as path, np.load(path) as archive:
        return _as_tensors(archive["images"], archive["labels"])


def mnist(root: str | Path, train: bool = True) -> tuple[Tensor, Tensor]:
    r"""The whole training (60,000) or test set (10,000) of MNIST from a torchvision root; needs torchvision.

    Args:
        root: The folder that holds ``MNIST/raw`` with the four idx files, as ``torchvision.datasets.MNIST`` writes it.
        train: The training set, or the test set.

    Returns:
        Images, float32 (N, 1, 28, 28) in [0, 1], and labels, int64 (N,).

    Raises:
        FileNotFoundError: The folder has no complete MNIST.
    """
    from torchvision.datasets import MNIST

    try:
        digits = MNIST(str(root), train=train, download=False)
    except RuntimeError as error:
        raise FileNotFoundError(
            f"no MNIST in {str(root)!r}: expected the four idx files in {Path(root) / 'MNIST' / 'raw'}; "
            f"torchvision.datasets.MNIST({str(root)!r}, download=True) puts them there"
        ) from error
    return _as_tensors(digits.data.numpy(), digits.targets.numpy())


def _as_tensors(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images).float().div(255).unsqueeze(1), torch.from_numpy(labels).long()
