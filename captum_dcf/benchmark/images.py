r"""The images of a plan and its references, by the table ``[data]`` of a TOML file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from captum_dcf import registry
from captum_dcf.data.sources import SOURCES, of_classes, open_source, read_all

__all__ = ["Data", "open_data"]

KNOWN = ("source", "root", "split", "classes", "references", "max_references")
# So many references are compared with, spread evenly over those there are.
MAX_REFERENCES = 10_000


@dataclass(frozen=True)
class Data:
    r"""What a plan searches, and what it compares with.

    Attributes:
        images: The images.
        references: Gives real images (M, C, H, W) and their labels (M,), on the CPU, read when first asked for.
        text: Where they come from, in words.
        fingerprint: SHA-256 of the images and, if they are files of their own, of the references.
    """

    images: Dataset[Any]
    references: Callable[[], tuple[Tensor, Tensor]]
    text: str
    fingerprint: str


def open_data(table: Mapping[str, Any], base: Path, root: str | Path | None, image_shape: Sequence[int] | None) -> Data:
    r"""Opens what a table describes.

    Its entries are ``source``, one of ``captum_dcf.data.sources.SOURCES``; ``root``, its folder, relative to the plan;
    ``split``, by default ``"test"``, and all of a folder of images; ``classes``, a list of those to search; and
    ``references``, another root of the source, where they are not the training split.

    Args:
        table: The table.
        base: Folder of the plan.
        root: Folder of the data, where the table does not say it.
        image_shape: (C, H, W) of the images, for sources of any shape.

    Raises:
        ValueError: The table says something unknown or wrong.
        FileNotFoundError: The data are not there.
    """
    _check(table, root)
    name = table["source"]
    shape = image_shape if registry.find(SOURCES, name, "source").image_shape is None else None
    split = table.get("split", None if name == "folder" else "test")
    place = base / table["root"] if "root" in table else root
    images: Dataset[Any] = open_source(name, place, split, shape)
    chosen = of_classes(images, table["classes"]) if "classes" in table else images
    other = base / table["references"] if "references" in table else None

    @cache
    def references() -> tuple[Tensor, Tensor]:
        if other is None and split is None:
            raise ValueError('a method or a metric needs real images: say references = "..." in [data]')
        real = open_source(name, other, None, shape) if other else open_source(name, place, "train", shape)
        return read_all(_some(real, table.get("max_references", MAX_REFERENCES)))

    prints = [_fingerprint(chosen)] + ([_fingerprint(open_source(name, other, None, shape))] if other else [])
    text = f"{name}, {split or 'all'}{'' if place else ', without a root'}"
    return Data(chosen, references, text, hashlib.sha256(" ".join(prints).encode()).hexdigest())


def _check(table: Mapping[str, Any], root: str | Path | None) -> None:
    unknown = sorted(set(table) - set(KNOWN))
    if unknown or "source" not in table:
        raise ValueError(f"data must say a source, and may say {', '.join(KNOWN[1:])}; received {dict(table)}")
    for part in ("source", "root", "split", "references"):
        if not isinstance(table.get(part, ""), str):
            raise ValueError(f"{part} of the data must be a string, received {table[part]!r}")
    classes = table.get("classes", [0])
    if not isinstance(classes, list) or not classes or not all(type(one) is int for one in classes):
        raise ValueError(f"classes of the data must be a list of ints, received {classes!r}")
    most = table.get("max_references", 1)
    if type(most) is not int or most < 1:
        raise ValueError(f"max_references of the data must be an int from 1 on, received {most!r}")
    if root is not None and "root" in table:
        raise ValueError(f"the plan says where the data are, {table['root']!r}: received another root {str(root)!r}")


def _some(dataset: Any, most: int) -> Any:
    count = len(dataset)
    return dataset if count <= most else Subset(dataset, [place * count // most for place in range(most)])


def _fingerprint(dataset: Any) -> str:
    """A hash of names and contents: a run must not go on with other images."""
    if isinstance(dataset, Subset):
        return f"{_fingerprint(dataset.dataset)} {_sha256(repr(list(dataset.indices)).encode())}"
    if isinstance(dataset, TensorDataset):
        return " ".join(_sha256(part.contiguous().numpy().tobytes()) for part in dataset.tensors)
    files = getattr(dataset, "files", [])
    return _sha256("\n".join(f"{path.parent.name}/{path.name} {_content(path)}" for path in files).encode())


def _content(path: Path) -> str:
    try:
        return _sha256(path.read_bytes())
    # The row of such an image will say so.
    except OSError:
        return "cannot be read"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
