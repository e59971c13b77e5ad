r"""Which image files there are in a folder or a CSV file, what their labels are, and which of them are held out."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image

from captum_dcf.data.table import Labels, labels_from, read_table

__all__ = ["Kind", "Listing", "check_split", "held_out_groups", "list_images"]

HELD_OUT = ("test", "val", "valid", "validation")
Kind = Literal["classes", "value"] | None


@dataclass(frozen=True)
class Listing:
    r"""Image files, none of them read yet.

    Attributes:
        files: The files, ordered by their paths, or as in the CSV file.
        targets: Their labels: ints below ``len(classes)``, or floats where ``classes`` is None.
        classes: Names of the classes.
        groups: The group of each; files of one group stay on one side of the split.
        held_out: Whether each belongs to the test set.
        labelled: Whether the labels were read from sub-folders or a column; else all are 0.
        left_out: Names in the folder that do not count as images.
    """

    files: list[Path]
    targets: list[int] | list[float]
    classes: tuple[str, ...] | None
    groups: list[str]
    held_out: list[bool]
    labelled: bool
    left_out: list[str]


def list_images(
    root: str | Path, column: str | None = None, group: str | None = None, labels: Kind = None, holdout: float = 0.1
) -> Listing:
    r"""Lists the images of a folder or a CSV file; :func:`captum_dcf.data.images.open_images` says of which.

    Raises:
        FileNotFoundError: There is no such folder or file, or no image in it.
        ValueError: The layout, the CSV file or an argument is none that is accepted, there are no ``labels`` of that
            kind or only one.
    """
    root = Path(root)
    if labels not in ("classes", "value", None):
        raise ValueError(f"labels must be 'classes', 'value' or None, received {labels!r}")
    if not 0 < holdout < 1:
        raise ValueError(f"holdout must be a share of the images between 0 and 1, received {holdout!r}")
    if root.is_dir() and (column is not None or group is not None):
        root = _only_csv(root, column, group)
    if root.is_file():
        listing = _csv(root, column, group, labels, holdout)
    elif root.is_dir():
        listing = _folder(root, labels, holdout)
    else:
        raise FileNotFoundError(f"no folder of images and no CSV file at {str(root)!r}")
    _check_labels(listing.targets, listing, root, labels)
    return listing


def check_split(listing: Listing, root: str | Path, labels: Kind = None) -> None:
    r"""Refuses what cannot be trained on, once its part to test with is held out.

    Raises:
        ValueError: All images are of one group; or labels are asked for, and those to train with are all the same.
    """
    if not any(listing.held_out):
        raise ValueError(
            f"the {len(listing.files):,} images of {str(root)!r} cannot be split into training and test: all are of "
            f"the group {listing.groups[0]!r}, accepted are two groups or more"
        )
    _check_labels([label for label, held in zip(listing.targets, listing.held_out) if not held], listing, root, labels)


def held_out_groups(groups: Sequence[str], holdout: float) -> set[str]:
    r"""The groups that are held out: those whose hash, as a share of the largest possible, lies below ``holdout``.

    A group has the same hash on every machine and beside any others. Where that would put all groups on one side, the
    one with the smallest hash is held out, or the one with the largest is not.

    Raises:
        ValueError: There are fewer than two groups.
    """
    order = sorted((_share(group), group) for group in set(groups))
    count = sum(share < holdout for share, _ in order)
    return {group for _, group in order[: min(max(count, 1), len(order) - 1)]}


def _share(group: str) -> float:
    # Some file systems decompose accented letters.
    digest = hashlib.sha256(unicodedata.normalize("NFC", group).encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _only_csv(root: Path, column: str | None, group: str | None) -> Path:
    found = sorted(root.glob("*.csv"))
    if len(found) != 1:
        raise ValueError(
            f"the column {column or group!r} is to be one of a CSV file: name it, or a folder with one such file; "
            f"{str(root)!r} holds {[path.name for path in found]}"
        )
    return found[0]


def _csv(path: Path, column: str | None, group: str | None, kind: Kind, holdout: float) -> Listing:
    table = read_table(path, column, group)
    places = [f"line {line}" for line in table.lines]
    labels = Labels([0] * len(table.files), (path.stem,))
    if table.cells is not None:
        labels = labels_from(table.cells, kind, places, f"the column {column!r} of {str(path)!r}")
    groups = table.groups or [_relative(file, path.parent) for file in table.files]
    chosen = held_out_groups(groups, holdout)
    held_out = [one in chosen for one in groups]
    return Listing(table.files, labels.targets, labels.classes, groups, held_out, column is not None, [])


class _Scan(NamedTuple):
    """The images below a folder, the sub-folder that each lies in, and other files. Directly in it: sub-folder ""."""

    files: list[Path]
    folders: list[str]
    others: list[Path]


def _folder(root: Path, kind: Kind, holdout: float) -> Listing:
    entries = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    folders = [path.name for path in entries if path.is_dir()]
    if folders == ["train"]:
        return _folder(root / "train", kind, holdout)
    test = next((name for name in HELD_OUT if name in folders), None)
    if test is None or "train" not in folders or set(folders) - {"train", *HELD_OUT}:
        found = _scan(root)
        groups = [_relative(file, root) for file in found.files]
        chosen = held_out_groups(groups, holdout)
        held_out, unused = [one in chosen for one in groups], []
    else:
        train, held = _scan(root / "train"), _scan(root / test)
        new = sorted(set(held.folders) - set(train.folders))
        if new:
            raise ValueError(
                f"{str(root / test)!r} must have the sub-folders of 'train', {sorted(set(train.folders))}, or fewer: "
                f"received {new} as well"
            )
        found = _Scan(train.files + held.files, train.folders + held.folders, train.others + held.others)
        groups = [_relative(file, root) for file in found.files]
        held_out = [False] * len(train.files) + [True] * len(held.files)
        unused = [path for path in entries if path.name not in ("train", test)]
    labels = _folder_labels(root, found.folders, kind)
    left_out = [_relative(path, root) for path in [*unused, *found.others]]
    return Listing(found.files, labels.targets, labels.classes, groups, held_out, found.folders[0] != "", left_out)


def _folder_labels(root: Path, names: list[str], kind: Kind) -> Labels:
    if names[0] != "":
        places = [f"sub-folder of {name!r}" for name in names]
        return labels_from(names, kind or "classes", places, f"the sub-folders of {str(root)!r}")
    if kind == "value":
        raise ValueError(f"the folder {str(root)!r} holds no values: accepted is a CSV file with a column of numbers")
    return Labels([0] * len(names), (root.resolve().name,))


def _scan(root: Path) -> _Scan:
    """What lies in a flat folder, or one with sub-folders; names that begin with a dot do not count."""
    kinds = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN} | {""}
    paths = []
    for folder, below, names in os.walk(root, followlinks=True):
        below[:] = [name for name in below if not name.startswith(".")]
        paths += [Path(folder, name) for name in names if not name.startswith(".")]
    paths.sort(key=lambda path: path.parts)
    files = [path for path in paths if path.suffix.lower() in kinds]
    folders = [path.relative_to(root).parts[0] if path.parent != root else "" for path in files]
    if not files:
        others = sorted({path.suffix for path in paths})
        raise FileNotFoundError(
            f"no images in {str(root)!r}: expected files that Pillow reads, in it or in one sub-folder per class; "
            f"received {len(paths)} other files {others}"
        )
    if "" in folders and set(folders) != {""}:
        raise ValueError(
            f"{str(root)!r} holds {folders.count('')} images beside the sub-folders {sorted(set(folders) - {''})}: "
            "accepted are images in it, or in its sub-folders"
        )
    return _Scan(files, folders, [path for path in paths if path.suffix.lower() not in kinds])


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _check_labels(targets: Sequence[float], listing: Listing, root: str | Path, kind: Kind) -> None:
    """Refuses to learn from labels that are all the same; ``kind`` None asks for no labels."""
    if kind is None or len(set(targets)) > 1:
        return
    only = targets[0]
    said = f"the value {only:g}" if listing.classes is None else f"the class {listing.classes[int(only)]!r}"
    raise ValueError(
        f"the {len(targets):,} images of {str(root)!r} to learn from are all of {said}: accepted are two classes or "
        "values or more, as sub-folders of images or in a column of a CSV file"
    )
