r"""The images of a plan and its references, by the table ``[data]`` of a TOML file."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from captum_dcf import registry
from captum_dcf.data.sources import SOURCES, of_classes, open_source, read_all

__all__ = ["Data", "label_of", "open_data"]

KNOWN = ("source", "root", "split", "image_shape", "classes", "references", "max_references")
# So many references are compared with, spread evenly over those there are.
MAX_REFERENCES = 10_000


@dataclass(frozen=True)
class Data:
    r"""What a plan searches, and what it compares with.

    Attributes:
        images: The images.
        references: Gives real images (M, C, H, W) and their labels (M,), on the CPU, read when first asked for.
        class_names: Names of the classes by label; empty where there are none.
        text: Where they come from, in words.
        fingerprint: SHA-256 of the images and, if they are files of their own, of the references.
    """

    images: Dataset[Any]
    references: Callable[[], tuple[Tensor, Tensor]]
    class_names: Mapping[int, str]
    text: str
    fingerprint: str


def open_data(table: Mapping[str, Any], base: Path, root: str | Path | None, image_shape: Sequence[int] | None) -> Data:
    r"""Opens what a table describes.

    Its entries are ``source``, one of ``captum_dcf.data.sources.SOURCES``; ``root``, its folder, relative to the plan;
    ``split``, by default ``"test"``, and all of a folder of images; ``image_shape``, (C, H, W), for sources of any;
    ``classes``, a list of those to search, by number or name; ``references``, another root of the source, where they
    are not the training split; ``max_references``; and what the source itself takes, such as the ``column`` of a table.

    Args:
        table: The table.
        base: Folder of the plan.
        root: Folder of the data, where the table does not say it.
        image_shape: (C, H, W) of the images, for sources of any shape, where the table does not say it.

    Raises:
        ValueError: The table says something unknown or wrong.
        FileNotFoundError: The data are not there.
    """
    arguments = _checked_arguments(table, root)
    name = table["source"]
    of_any_shape = registry.find(SOURCES, name, "source").image_shape is None
    shape = table.get("image_shape", image_shape) if of_any_shape else None
    split = table.get("split", None if name == "folder" else "test")
    place = base / table["root"] if "root" in table else root

    def opened(place: str | Path | None, split: str | None) -> Dataset[Any]:
        return open_source(name, place, split, shape, **arguments)

    images = opened(place, split)
    names = _class_names(images, name)
    chosen = of_classes(images, [label_of(one, names) for one in table["classes"]]) if "classes" in table else images
    other = base / table["references"] if "references" in table else None

    @cache
    def references() -> tuple[Tensor, Tensor]:
        if other is None and split is None:
            raise ValueError('a method or a metric needs real images: say references = "..." in [data]')
        real = opened(other, None) if other else opened(place, "train")
        return read_all(_some(real, table.get("max_references", MAX_REFERENCES)))

    prints = [_fingerprint(chosen)] + ([_fingerprint(opened(other, None))] if other else [])
    text = f"{name}, {split or 'all'}{'' if place else ', without a root'}"
    return Data(chosen, references, names, text, hashlib.sha256(" ".join(prints).encode()).hexdigest())


def label_of(name: int | str, class_names: Mapping[int, str]) -> int:
    r"""The label of a class, given by its number or its name.

    Raises:
        ValueError: There is no class of that name, or several.
    """
    if isinstance(name, int):
        return name
    labels = [label for label, known in class_names.items() if known == name]
    if len(labels) != 1:
        raise ValueError(f"no class {name!r}: there are {', '.join(map(repr, class_names.values())) or 'no names'}")
    return labels[0]


def _class_names(dataset: Any, source: str) -> dict[int, str]:
    names = getattr(dataset, "classes", None) or SOURCES[source].classes or ()
    if isinstance(names, Mapping):
        return {label: name for name, label in names.items()}
    return dict(enumerate(names))


def _checked_arguments(table: Mapping[str, Any], root: str | Path | None) -> dict[str, Any]:
    """What is the source's own in a table, all of which is checked."""
    if "source" not in table:
        raise ValueError(f"data must say a source, received {dict(table)}")
    opener = registry.imported(registry.find(SOURCES, table["source"], "source").open)
    of_source = list(inspect.signature(opener).parameters)[3:]
    unknown = sorted(set(table) - {*KNOWN, *of_source})
    if unknown:
        accepted = ", ".join([*KNOWN[1:], *of_source])
        raise ValueError(f"data must say a source, and of {table['source']!r} may say {accepted}; received {unknown}")
    _check(table, root)
    return {name: table[name] for name in of_source if name in table}


def _check(table: Mapping[str, Any], root: str | Path | None) -> None:
    for part in ("source", "root", "split", "references"):
        if not isinstance(table.get(part, ""), str):
            raise ValueError(f"{part} of the data must be a string, received {table[part]!r}")
    classes = table.get("classes", [0])
    if not isinstance(classes, list) or not classes or not all(type(one) in (int, str) for one in classes):
        raise ValueError(f"classes of the data must be a list of numbers or names, received {classes!r}")
    most = table.get("max_references", 1)
    if type(most) is not int or most < 1:
        raise ValueError(f"max_references of the data must be an int from 1 on, received {most!r}")
    shape = table.get("image_shape", [1])
    if not isinstance(shape, list) or not all(type(one) is int and one > 0 for one in shape):
        raise ValueError(f"image_shape of the data must be a list such as [3, 64, 64], received {shape!r}")
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
    files, labels = getattr(dataset, "files", []), list(getattr(dataset, "targets", []))
    lines = [f"{path.parent.name}/{path.name} {_content(path)}" for path in files]
    return _sha256("\n".join([*lines, repr(labels)]).encode())


def _content(path: Path) -> str:
    try:
        return _sha256(path.read_bytes())
    # The row of such an image will say so.
    except OSError:
        return "cannot be read"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
