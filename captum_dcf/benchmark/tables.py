r"""Tables of text as Markdown, and records as CSV: the one writer of each."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

__all__ = ["Table", "markdown_text", "write_csv"]

# A spreadsheet takes text that begins with one of these for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Table:
    r"""A table of text.

    Attributes:
        title: What it shows.
        header: Names of the columns.
        rows: The cells.
    """

    title: str
    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        r"""The table in Markdown without its title, columns aligned.

        Examples:
            >>> print(Table("", ["method", "l1"], [["a|b", "0.5"]]).markdown())
            | method | l1  |
            | ------ | --- |
            | a\|b   | 0.5 |
        """
        header, *rows = [[markdown_text(cell).replace("|", "\\|") for cell in row] for row in (self.header, *self.rows)]
        widths = [max(3, *map(len, column)) for column in zip(header, *rows)]
        lines = [header, ["-" * width for width in widths], *rows]
        return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


def markdown_text(text: str) -> str:
    r"""Text on one line that is no HTML."""
    return " ".join(text.split()).replace("<", "&lt;")


def write_csv(file: TextIO, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    r"""Writes records row by row: a table may be longer than memory.

    Text that a spreadsheet would take for a formula comes after an apostrophe; numbers are never text.
    """
    writer = csv.writer(file)
    writer.writerow(map(_guarded, columns))
    writer.writerows([_guarded(row[column]) for column in columns] for row in rows)


def _guarded(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
