r"""CheXpert: chest radiographs with fourteen findings that a program read off the reports, some as uncertain.

Irvin et al., "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison", AAAI 2019;
under Stanford's research use agreement: for non-commercial research, not to be passed on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from captum_dcf.data.images import Images
from captum_dcf.data.published import Published, unknown_name
from captum_dcf.data.radiographs import NO_FINDING, Negative, class_names, read_rows, side_of_patient

__all__ = ["CheXpert", "open_chexpert"]

CHEXPERT = Published("CheXpert", "https://stanfordmlgroup.github.io/competitions/chexpert/")
IMAGE_SHAPE = (1, 128, 128)
FOLDERS = ("CheXpert-v1.0-small", "CheXpert-v1.0")
NOT_FINDINGS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
# What an uncertain mark counts as: absent, present, or neither.
UNCERTAIN: dict[str, float | None] = {"zeros": 0.0, "ones": 1.0, "ignore": None}
Uncertain = Literal["zeros", "ones", "ignore"]


class CheXpert(Images):
    r"""The frontal radiographs of CheXpert and whether each has a finding: 0 if not, 1 if so.

    ``root/CheXpert-v1.0-small`` (or ``CheXpert-v1.0``) holds ``train.csv`` and ``valid.csv``, as the owner offers them,
    and the images that they name. A finding is marked as present (1), absent (0), uncertain (-1) or not at all.

    The owner's test set is not part of it, and ``valid.csv`` has 200 patients only. So a fixed tenth of the patients of
    ``train.csv`` is the split ``"test"`` and the others are ``"train"``, the same on every machine; no patient is in
    both. ``"valid"`` is ``valid.csv``, marked by radiologists.

    Images are cut to the largest square in their middle and resized, so that nothing is distorted.

    Args:
        root: The folder that holds ``CheXpert-v1.0-small``.
        split: ``"train"``, ``"test"`` or ``"valid"``; None for all of ``train.csv``.
        finding: One of the columns, such as ``"Cardiomegaly"``.
        uncertain: What -1 counts as: ``"zeros"`` as absent, ``"ones"`` as present, ``"ignore"`` leaves the image out.
            The first and the last differ with ``negative="all"`` only.
        negative: Which images are of class 0: ``"healthy"``, those with the mark "No Finding"; ``"all"``, those where
            the finding is absent or not marked, whatever else they have. Images of neither class are left out.
        frontal: Leave lateral radiographs out.
        image_shape: (C, H, W) to which images are brought.

    Raises:
        FileNotFoundError: A file is not there; it is named, with where the owner offers it.
        ValueError: There is no such split, finding or policy, a file is damaged, or a class has no image.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | None = "train",
        finding: str = "Cardiomegaly",
        uncertain: Uncertain = "zeros",
        negative: Negative = "healthy",
        frontal: bool = True,
        image_shape: Sequence[int] = IMAGE_SHAPE,
    ) -> None:
        if uncertain not in UNCERTAIN:
            raise unknown_name("policy for uncertain marks", uncertain, UNCERTAIN)
        if split not in ("train", "test", "valid", None):
            raise unknown_name("split", split, ("train", "valid", "test"))
        classes = class_names(finding, negative)
        folder = next((Path(root) / name for name in FOLDERS if (Path(root) / name).is_dir()), Path(root) / FOLDERS[0])
        table = folder / ("valid.csv" if split == "valid" else "train.csv")
        CHEXPERT.check_there([table])
        files, targets, patients = [], [], []
        for line, row in read_rows(table, NOT_FINDINGS):
            where = f"{table}, line {line}"
            if frontal and row["Frontal/Lateral"] != "Frontal":
                continue
            label = _label(row, finding, uncertain, negative, where)
            # The first part is the owner's folder, whatever it is called here.
            files.append(folder.joinpath(*PurePosixPath(row["Path"]).parts[1:]))
            targets.append(label)
            patients.append(_patient(row["Path"], where))
        on_side = side_of_patient(patients, split) if split in ("train", "test") else [True] * len(files)
        chosen = [place for place, label in enumerate(targets) if label is not None and on_side[place]]
        labels = [label for label in (targets[place] for place in chosen) if label is not None]
        CHEXPERT.check_classes(labels, classes, table)
        files = [files[place] for place in chosen]
        CHEXPERT.check_images(files)
        super().__init__(files, labels, classes, image_shape, crop=True)
        self.patients = [patients[place] for place in chosen]


def open_chexpert(
    root: str | Path | None,
    split: str | None,
    image_shape: Sequence[int] | None,
    finding: str = "Cardiomegaly",
    uncertain: Uncertain = "zeros",
    negative: Negative = "healthy",
    frontal: bool = True,
) -> CheXpert:
    r"""The source ``chexpert``: :class:`CheXpert`, by default of 128×128 pixels, healthy or cardiomegaly."""
    shape = image_shape or IMAGE_SHAPE
    return CheXpert(CHEXPERT.root(root), split, finding, uncertain, negative, frontal, shape)


def _label(row: dict[str, str], finding: str, uncertain: str, negative: str, where: str) -> int | None:
    """0 or 1, or None for an image of neither class."""
    if finding not in row or finding in (*NOT_FINDINGS, NO_FINDING):
        raise unknown_name("finding", finding, [name for name in row if name not in (*NOT_FINDINGS, NO_FINDING)])
    mark = _mark(row[finding], finding, where)
    counted = UNCERTAIN[uncertain] if mark == -1 else mark
    if counted is None:
        return None
    if counted == 1:
        return 1
    is_healthy = _mark(row.get(NO_FINDING, ""), NO_FINDING, where) == 1
    return 0 if negative == "all" or is_healthy else None


def _mark(cell: str, finding: str, where: str) -> float:
    """1, 0 or -1; 0 where nothing is marked."""
    try:
        mark = float(cell or 0)
    except ValueError:
        mark = float("nan")
    if mark not in (1, 0, -1):
        raise ValueError(f"{where}: {finding} must be 1, 0, -1 or empty, received {cell!r}")
    return mark


def _patient(path: str, where: str) -> str:
    found = re.search(r"patient\d+", path)
    if found is None:
        raise ValueError(f"{where}: the path must name a patient, such as patient00001, received {path!r}")
    return found[0]
