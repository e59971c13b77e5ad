r"""Where data come from: named sources, each opened as a torch data set of images and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from captum_dcf import registry

__all__ = ["SOURCES", "Source", "labels_of", "of_classes", "open_source", "read_all", "register"]


@dataclass(frozen=True)
class Source:
    r"""A data set, or a kind of data set such as a folder of images.

    Attributes:
        open: ``"module:function"`` of ``(root, split, image_shape, **arguments)`` that gives a torch ``Dataset`` with a
            length, of pairs of an image, float32 (C, H, W) in [0, 1], and its label, a number. ``root`` is a folder or
            None, ``split`` is ``"train"`` or ``"test"`` (None: everything, where there are no splits), ``image_shape``
            is (C, H, W) or None for that of the source, ``arguments`` are the source's own. A data set may have
            ``targets``, all labels in order, so that they are known without reading images.
        image_shape: (C, H, W) of its images; None where the user says it.
        labels: ``"classes"``, integers from 0 on, ``"value"``, real numbers, or ``"any"``, where the data decide.
        classes: Names of the classes, those of label 0, 1, ...; None where they are not known before it is opened.
        credit: What it is, by whom and under which licence, for the cards of what is trained on it.
    """

    open: str
    image_shape: tuple[int, ...] | None
    labels: Literal["classes", "value", "any"]
    classes: tuple[str, ...] | None
    credit: str

    def __post_init__(self) -> None:
        registry.check_place(self.open, "open")
        if self.labels not in ("classes", "value", "any"):
            raise ValueError(f"labels must be 'classes', 'value' or 'any', received {self.labels!r}")


SOURCES: dict[str, Source] = {
    "mnist": Source(
        open="captum_dcf.data.mnist:open_mnist",
        image_shape=(1, 28, 28),
        labels="classes",
        classes=tuple("0123456789"),
        credit="MNIST; Yann LeCun and Corinna Cortes, CC BY-SA 3.0",
    ),
    "faces": Source(
        open="captum_dcf.data.faces:open_faces",
        image_shape=(3, 64, 64),
        labels="classes",
        classes=("not blond", "blond"),
        credit="faces put together from the parts of Open Peeps; Pablo Stanley, CC0 1.0",
    ),
    "chest": Source(
        open="captum_dcf.data.chest:open_chest",
        image_shape=(1, 28, 28),
        labels="classes",
        classes=("normal", "pneumonia"),
        credit="PneumoniaMNIST; Yang et al. (MedMNIST v2) from X-rays of Kermany et al. (2018), CC BY 4.0",
    ),
    "helix": Source(
        open="captum_dcf.data.helix:open_helix",
        image_shape=(3,),
        labels="classes",
        classes=("z ≤ 0", "z > 0"),
        credit="points of a helix, drawn anew",
    ),
    "folder": Source(
        open="captum_dcf.data.folder:open_folder",
        image_shape=None,
        labels="classes",
        classes=None,
        credit="images of a folder of the user's",
    ),
    "images": Source(
        open="captum_dcf.data.images:open_images",
        image_shape=None,
        labels="any",
        classes=None,
        credit="images of the user's",
    ),
    "celeba": Source(
        open="captum_dcf.data.celeba:open_celeba",
        image_shape=None,
        labels="classes",
        classes=None,
        credit="CelebA; Liu, Luo, Wang and Tang (ICCV 2015), for non-commercial research only",
    ),
    "celeba-hq": Source(
        open="captum_dcf.data.celeba_hq:open_celeba_hq",
        image_shape=None,
        labels="classes",
        classes=None,
        credit="CelebAMask-HQ; Lee, Liu, Wu and Luo (CVPR 2020), for non-commercial research only",
    ),
    "chexpert": Source(
        open="captum_dcf.data.chexpert:open_chexpert",
        image_shape=None,
        labels="classes",
        classes=None,
        credit="CheXpert; Irvin et al. (AAAI 2019), Stanford's research use agreement: non-commercial, not passed on",
    ),
    "nih-chest": Source(
        open="captum_dcf.data.nih_chest:open_nih_chest",
        image_shape=None,
        labels="any",
        classes=None,
        credit="ChestX-ray14 of the NIH Clinical Center; Wang et al. (CVPR 2017), free to use",
    ),
}


def register(name: str, source: Source) -> None:
    r"""Adds a source of one's own.

    Raises:
        ValueError: Another source has that name.
    """
    registry.add(SOURCES, name, source, "source")


def open_source(
    name: str,
    root: str | Path | None = None,
    split: str | None = "train",
    image_shape: Sequence[int] | None = None,
    **arguments: Any,
) -> Dataset[tuple[Tensor, Any]]:
    r"""Opens a source by name.

    Args:
        name: One of ``SOURCES``.
        root: Folder of the data. Without one, ``mnist``, ``faces`` and ``chest`` give their bundled samples;
            ``helix`` needs none.
        split: ``"train"`` or ``"test"``, or for ``folder`` and ``images`` None: everything in it.
        image_shape: (C, H, W); that of the source by default.
        **arguments: What else the source takes, such as the ``column`` of
            :func:`captum_dcf.data.images.open_images`.

    Raises:
        TypeError: The source takes no such argument.
        ValueError: There is no such source, or it has no such split or shape, or its files are damaged.
        FileNotFoundError: The data are not in ``root``.

    Examples:
        >>> image, label = open_source("mnist", split="test")[0]
        >>> image.shape, int(label)
        (torch.Size([1, 28, 28]), 0)
    """
    source = registry.find(SOURCES, name, "source")
    if split not in ("train", "test", None):
        raise ValueError(f"split must be 'train', 'test' or None, received {split!r}")
    dataset: Dataset[tuple[Tensor, Any]] = registry.imported(source.open)(root, split, image_shape, **arguments)
    return dataset


def labels_of(dataset: Dataset[tuple[Tensor, Any]]) -> Tensor:
    r"""All labels of a data set, (N,), by its ``targets`` where it has them."""
    if isinstance(dataset, Subset):
        return labels_of(dataset.dataset)[torch.as_tensor(dataset.indices, dtype=torch.int64)]
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[1]
    targets = getattr(dataset, "targets", None)
    if targets is None:
        targets = [dataset[index][1] for index in range(_length(dataset))]
    return torch.as_tensor(targets)


def of_classes(dataset: Dataset[tuple[Tensor, Any]], classes: Sequence[int]) -> Subset[tuple[Tensor, Any]]:
    r"""The examples of some classes, with the labels they have.

    Raises:
        ValueError: There is none.
    """
    labels = labels_of(dataset)
    chosen = torch.isin(labels, torch.tensor(classes)).nonzero().flatten().tolist()
    if not chosen:
        raise ValueError(f"no example of the classes {list(classes)}: there are {sorted(set(labels.tolist()))}")
    return Subset(dataset, chosen)


def read_all(dataset: Dataset[tuple[Tensor, Any]]) -> tuple[Tensor, Tensor]:
    r"""A whole data set as two tensors, images (N, C, H, W) and labels (N,).

    Raises:
        ValueError: Some examples cannot be read; each is named.
    """
    images, labels, broken = [], [], []
    for index in range(_length(dataset)):
        try:
            image, label = dataset[index]
        except (OSError, ValueError) as error:
            broken.append(str(error))
        else:
            images.append(image)
            labels.append(label)
    if broken:
        raise ValueError(f"{len(broken)} of {_length(dataset)} images cannot be read: {'; '.join(broken)}")
    return torch.stack(images), torch.as_tensor(labels)


def _length(dataset: Any) -> int:
    return len(dataset)
