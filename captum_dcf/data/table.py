r"""A CSV file that names images, with a label and a group of each."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Labels", "Table", "enumerate_some", "labels_from", "read_table"]

FILE_COLUMNS = ("file", "filename", "image", "path")
MOST_CLASSES = 20
LARGEST_LABEL = 999


@dataclass(frozen=True)
class Table:
    r"""The rows of a CSV file.

    Attributes:
        files: The image files.
        lines: The line of the CSV file that each stands in, from 1 on.
        cells: What the column of the labels says of each; None where no column was asked for.
        groups: What the column of the groups says of each; None where no column was asked for.
    """

    files: list[Path]
    lines: list[int]
    cells: list[str] | None
    groups: list[str] | None


@dataclass(frozen=True)
class Labels:
    r"""Labels of images: ``targets`` are ints below ``len(classes)``, or floats where ``classes`` is None."""

    targets: list[int] | list[float]
    classes: tuple[str, ...] | None


def read_table(path: Path, column: str | None, group: str | None) -> Table:
    r"""Reads a CSV file in UTF-8 with a header, separated by commas, semicolons or tabs.

    File names stand in the column ``file``, ``filename``, ``image`` or ``path``, in capitals or not, else in the first;
    they are relative to the folder of the CSV file. Empty lines are left out.

    Raises:
        ValueError: It is no such file, has no such column, or rows lack a cell, name a file that is not there or name
            one twice; the rows are named by their lines.
    """
    header, rows, lines = _read(path)
    place = _file_column(header)
    _check_header(path, header, place)
    wanted = [place, *(_column(path, header, name) for name in (column, group) if name is not None)]
    problems: list[str] = []
    seen: dict[Path, int] = {}
    files = []
    for row, line in zip(rows, lines):
        empty = [header[at] for at in wanted if at >= len(row) or not row[at]]
        file = Path(os.path.normpath(path.parent / row[place])) if place < len(row) else path
        files.append(file)
        if len(row) > len(header):
            problems.append(f"line {line} has {len(row)} cells, the header {len(header)}")
        elif empty:
            problems.append(f"line {line} has no {empty[0]!r}")
        elif not file.is_file():
            problems.append(f"line {line}: there is no file {str(file)!r}")
        elif file in seen:
            problems.append(f"line {line}: {row[place]!r} is named in line {seen[file]} too")
        seen[file] = line
    if problems:
        raise ValueError(
            f"{len(problems)} of {len(rows)} rows of {str(path)!r} cannot be used: {enumerate_some(problems)}. "
            f"Accepted is one existing file a row, in the column {header[place]!r}, none twice, and no empty cell"
        )
    columns = [[row[at] for row in rows] for at in wanted[1:]]
    groups = columns.pop() if group is not None else None
    return Table(files, lines, columns.pop() if column is not None else None, groups)


def labels_from(
    cells: Sequence[str], kind: Literal["classes", "value"] | None, places: Sequence[str], where: str
) -> Labels:
    r"""What the cells of a column, or the names of folders, are as labels.

    Words are classes, numbered in alphabetical order. Numbers are classes where they are 0 to k - 1, each of them there
    and k at most 20, and else values. Asked for as ``"classes"``, whole numbers from 0 to 999 are their own labels, as
    with folders, and others are numbered in order. Asked for as ``"value"``, all must be numbers.

    Args:
        cells: Word or number of each image.
        kind: What the labels must be; None to decide it by the rule above.
        places: Where each cell stands, for errors.
        where: Where all of them stand, for errors.

    Raises:
        ValueError: Some are numbers and others are not, or not finite; or values are needed and there are words.
    """
    numbers = [_number(cell) for cell in cells]
    words = [f"{place}: {cell!r}" for place, cell, number in zip(places, cells, numbers) if number is None]
    if words and (kind == "value" or len(words) < len(cells)):
        accepted = "numbers only" if kind == "value" else "numbers only, or words only"
        raise ValueError(
            f"{len(words)} of {len(cells)} labels of {where} are no finite numbers: {enumerate_some(words, 5)}. "
            f"Accepted are {accepted}"
        )
    if words:
        names = {name: label for label, name in enumerate(sorted(set(cells)))}
        return Labels([names[cell] for cell in cells], tuple(names))
    values = [number for number in numbers if number is not None]
    distinct = sorted(set(values))
    if kind == "value" or (kind is None and (len(distinct) > MOST_CLASSES or distinct != list(range(len(distinct))))):
        return Labels(values, None)
    if all(value.is_integer() and 0 <= value <= LARGEST_LABEL for value in distinct):
        return Labels([int(value) for value in values], tuple(str(label) for label in range(int(distinct[-1]) + 1)))
    if len(distinct) > MOST_CLASSES:
        raise ValueError(
            f"{where} holds {len(distinct):,} different numbers from {distinct[0]:g} to {distinct[-1]:g}: accepted as "
            f"classes are words, whole numbers from 0 to {LARGEST_LABEL}, or at most {MOST_CLASSES} different numbers"
        )
    order = {value: label for label, value in enumerate(distinct)}
    return Labels([order[value] for value in values], tuple(f"{value:.12g}" for value in distinct))


def enumerate_some(parts: Sequence[str], most: int = 20) -> str:
    r"""The first of many parts of a sentence, and how many more there are."""
    more = len(parts) - most
    return "; ".join(parts[:most]) + (f"; and {more:,} more" if more > 0 else "")


def _number(cell: str) -> float | None:
    try:
        # Python reads 1_0 as ten.
        number = float(cell) if "_" not in cell else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _read(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows, and the line each row ends in."""
    try:
        # Excel puts a byte order mark first.
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
        rows = [([cell.strip() for cell in row], reader.line_num) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} is no CSV file in UTF-8: {error}") from error
    rows = [(row, line) for row, line in rows if any(row)]
    if len(rows) < 2:
        raise ValueError(
            f"{str(path)!r} must hold a header and one row or more, received {len(rows)} lines that are not empty"
        )
    return rows[0][0], [row for row, _ in rows[1:]], [line for _, line in rows[1:]]


def _file_column(header: list[str]) -> int:
    names = [name.lower() for name in header]
    return next((names.index(name) for name in FILE_COLUMNS if name in names), 0)


def _check_header(path: Path, header: list[str], place: int) -> None:
    if (path.parent / header[place]).is_file():
        raise ValueError(f"the first line of {str(path)!r} must name the columns, received {header}")


def _column(path: Path, header: list[str], name: str) -> int:
    if header.count(name) != 1:
        raise ValueError(f"{str(path)!r} must have one column {name!r}, received the columns {header}")
    return header.index(name)
