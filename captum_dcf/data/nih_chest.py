r"""ChestX-ray14 of the NIH Clinical Center: chest radiographs with fourteen findings, and the patients' ages.

Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks", CVPR 2017. The NIH
sets no restrictions on the use of the images and asks to be acknowledged as their source.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from captum_dcf.data.images import Images
from captum_dcf.data.published import Published, unknown_name
from captum_dcf.data.radiographs import NO_FINDING, Negative, class_names, read_rows, side_of_patient

__all__ = ["NIHChest", "open_nih_chest"]

NIH = Published("ChestX-ray14 of the NIH", "https://nihcc.app.box.com/v/ChestXray-NIHCC")
IMAGE_SHAPE = (1, 128, 128)
COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age")
# Years by the unit of an age: the first edition of the table has units.
YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "D": 1 / 365.25}
OLDEST = 120


class NIHChest(Images):
    r"""The radiographs of ChestX-ray14 and whether each has a finding, 0 or 1, or the age of the patient in years.

    ``root`` holds ``Data_Entry_2017.csv`` (or ``Data_Entry_2017_v2020.csv``), and the images in ``images`` or, as the
    archives unpack, in ``images_001/images`` to ``images_012/images``. Where ``train_val_list.txt`` and
    ``test_list.txt`` are there they say the split; else a fixed tenth of the patients is the test set. No patient is in
    both.

    Images are cut to the largest square in their middle, which is nearly all of them, and resized.

    Args:
        root: The folder.
        split: ``"train"`` or ``"test"``; None for all.
        finding: One of those in the table, such as ``"Cardiomegaly"``; not used where a ``value`` is asked for.
        value: ``"age"`` for regression. Rows that say more than 120 years, which are mistakes of the table, are left
            out.
        negative: Which images are of class 0: ``"healthy"``, those with "No Finding"; ``"all"``, all that do not have
            the finding. Images of neither class are left out.
        image_shape: (C, H, W) to which images are brought.

    Raises:
        FileNotFoundError: A file is not there; it is named, with where the NIH offers it.
        ValueError: There is no such split, finding or value, a file is damaged, a patient is in both lists, or a class
            has no image.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | None = "train",
        finding: str = "Cardiomegaly",
        value: Literal["age"] | None = None,
        negative: Negative = "healthy",
        image_shape: Sequence[int] = IMAGE_SHAPE,
    ) -> None:
        if value not in ("age", None):
            raise unknown_name("value", value, ("age",))
        classes = class_names(finding, negative) if value is None else None
        table, images = _table(Path(root)), _images(Path(root))
        rows = list(read_rows(table, COLUMNS))
        if classes is not None:
            _check_finding(finding, [row for _, row in rows])
        targets = [
            _label(row, finding, negative) if value is None else _age(row["Patient Age"], f"{table}, line {line}")
            for line, row in rows
        ]
        names, patients = [row["Image Index"] for _, row in rows], [row["Patient ID"] for _, row in rows]
        on_side = _side(Path(root), names, patients, split)
        chosen = [place for place, target in enumerate(targets) if target is not None and on_side[place]]
        labels = [target for target in (targets[place] for place in chosen) if target is not None]
        files = [images.get(names[place], Path(root) / "images" / names[place]) for place in chosen]
        if classes is not None:
            NIH.check_classes([int(label) for label in labels], classes, table)
        NIH.check_images(files)
        super().__init__(files, labels, classes, image_shape, crop=True)
        self.patients = [patients[place] for place in chosen]


def open_nih_chest(
    root: str | Path | None,
    split: str | None,
    image_shape: Sequence[int] | None,
    finding: str = "Cardiomegaly",
    value: Literal["age"] | None = None,
    negative: Negative = "healthy",
) -> NIHChest:
    r"""The source ``nih-chest``: :class:`NIHChest`, by default of 128×128 pixels, healthy or cardiomegaly."""
    return NIHChest(NIH.root(root), split, finding, value, negative, image_shape or IMAGE_SHAPE)


def _table(root: Path) -> Path:
    tables = sorted(root.glob("Data_Entry_2017*.csv"))
    NIH.check_there(tables[:1] or [root / "Data_Entry_2017.csv"])
    return tables[0]


def _images(root: Path) -> dict[str, Path]:
    return {path.name: path for folder in sorted(root.glob("images*")) for path in folder.rglob("*.png")}


def _check_finding(finding: str, rows: Sequence[dict[str, str]]) -> None:
    known = sorted({name for row in rows for name in row["Finding Labels"].split("|")} - {NO_FINDING, ""})
    if finding not in known:
        raise unknown_name("finding", finding, known)


def _label(row: dict[str, str], finding: str, negative: str) -> int | None:
    """0 or 1, or None for an image of neither class; an empty cell says nothing."""
    findings = row["Finding Labels"].split("|")
    if finding in findings:
        return 1
    is_negative = NO_FINDING in findings or (negative == "all" and findings != [""])
    return 0 if is_negative else None


def _age(cell: str, where: str) -> float | None:
    """Years; None for an age that nobody reaches, or an empty cell."""
    if not cell:
        return None
    found = re.fullmatch(r"(\d+)([YMD]?)", cell)
    if found is None:
        raise ValueError(f"{where}: Patient Age must be a number of years such as 58 or 058Y, received {cell!r}")
    years = int(found[1]) * YEARS[found[2]]
    return years if years <= OLDEST else None


def _side(root: Path, names: Sequence[str], patients: Sequence[str], split: str | None) -> list[bool]:
    """Whether each image belongs to a split."""
    if split is None:
        return [True] * len(names)
    lists = {"train": root / "train_val_list.txt", "test": root / "test_list.txt"}
    if split not in lists or not any(path.is_file() for path in lists.values()):
        return side_of_patient(patients, split)
    NIH.check_there(list(lists.values()))
    said = {side: set(path.read_text(encoding="utf-8").split()) for side, path in lists.items()}
    sides = [{patient for name, patient in zip(names, patients) if name in said[side]} for side in lists]
    if sides[0] & sides[1]:
        raise ValueError(f"patient {min(sides[0] & sides[1])!r} is in both {lists['train']} and {lists['test']}")
    return [name in said[split] for name in names]
