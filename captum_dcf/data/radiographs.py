r"""Tables of chest radiographs: a row per image, what is found in it, and whose it is."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from captum_dcf.data.listing import held_out_groups

__all__ = ["HOLDOUT", "NEGATIVE", "NO_FINDING", "Negative", "class_names", "read_rows", "side_of_patient"]

NO_FINDING = "No Finding"
# What is put beside the images with a finding: those without any, or all those without this one.
Negative = Literal["healthy", "all"]
NEGATIVE = ("healthy", "all")
# Share of the patients to test with, where the owner names none.
HOLDOUT = 0.1


def read_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    r"""The rows of a CSV file with a header, each with its line.

    Raises:
        ValueError: It is no such file, lacks a column or has no rows, or a row has more or fewer cells than the header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            absent = [name for name in needed if name not in (reader.fieldnames or [])]
            if absent:
                raise ValueError(f"{path} has no column {', '.join(absent)}; its columns are {reader.fieldnames}")
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"{path}, line {reader.line_num}: another number of cells than the header has")
                yield reader.line_num, {name: cell.strip() for name, cell in row.items()}
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def class_names(finding: str, negative: str) -> tuple[str, str]:
    r"""The names of the two classes.

    Raises:
        ValueError: ``negative`` is none of ``NEGATIVE``.
    """
    if negative not in NEGATIVE:
        raise ValueError(f"negative must be one of {NEGATIVE}, received {negative!r}")
    return (NO_FINDING if negative == "healthy" else f"no {finding}", finding)


def side_of_patient(patients: Sequence[str], split: str) -> list[bool]:
    r"""Whether each image is on one side of a split by patient: a fixed tenth of the patients is the test set.

    Raises:
        ValueError: There is no such split, or only one patient.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', received {split!r}")
    held_out = held_out_groups(patients, HOLDOUT)
    return [(patient in held_out) == (split == "test") for patient in patients]
