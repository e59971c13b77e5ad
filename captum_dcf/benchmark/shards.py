r"""Results on disk: one file per shard, which exists wholly or not at all, and the settings they belong to."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

__all__ = ["ShardFolder", "whole_file", "write_whole"]

# Of one row: image, method, generator, confidence.
Key = tuple[Any, ...]
REMEDY = "Delete it, and the same command makes it again"


class ShardFolder:
    r"""The folder of one run.

    Args:
        path: Where ``settings.json`` and ``shards/`` are, or will be.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._shards = self.path / "shards"
        self._settings = self.path / "settings.json"

    def check(self, described: Mapping[str, Any]) -> None:
        r"""Makes sure that this is the folder of a run with these settings, or of none that has a shard yet.

        Raises:
            ValueError: It holds shards of a run with other settings, or with none left.
        """
        if not any(self._shards.glob("*.jsonl")):
            return
        if not self._settings.is_file():
            raise ValueError(
                f"{self.path} holds shards of a run whose {self._settings.name} is gone: choose another folder"
            )
        self._compare(described)

    def _compare(self, described: Mapping[str, Any]) -> None:
        found, wanted = self.settings(), json.loads(json.dumps(described))
        if found != wanted:
            raise ValueError(
                f"{self.path} holds a run with other settings: {'; '.join(_differences(found, wanted))}. "
                "Choose another folder, or the same settings"
            )

    def claim(self, described: Mapping[str, Any]) -> None:
        r"""Makes this the folder of a run; one that has no shard yet loses its place.

        Raises:
            OSError: Nothing can be written there.
        """
        try:
            self._shards.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _explained(error, self.path) from error
        if not any(self._shards.glob("*.jsonl")):
            write_whole(self._settings, json.dumps(described, indent=2, ensure_ascii=False) + "\n")

    def settings(self) -> dict[str, Any]:
        r"""The settings of the run in this folder.

        Raises:
            FileNotFoundError: There is no run.
            ValueError: The file of the settings is damaged.
        """
        if not self._settings.is_file():
            raise FileNotFoundError(f"there is no benchmark in {str(self.path)!r}: it has no {self._settings.name}")
        try:
            settings = json.loads(self._settings.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{self._settings} is damaged: {error}. Choose another folder") from error
        if not isinstance(settings, dict):
            raise ValueError(f"{self._settings} is damaged: it holds no JSON object. Choose another folder")
        return settings

    def has(self, number: int, keys: Collection[Key]) -> bool:
        r"""Whether a shard is there.

        Args:
            number: Its number.
            keys: The image and the method of each of its rows.

        Raises:
            ValueError: It is there and damaged.
        """
        if not self._file(number).is_file():
            return False
        found = [_key(row) for row in self.rows([number])]
        if sorted(map(str, found)) != sorted(map(str, keys)):
            raise ValueError(
                f"{self._file(number)} is damaged: it must have a row for each image and method, {len(keys)} rows, and "
                f"has {len(found)}, or others. {REMEDY}"
            )
        return True

    def write(self, number: int, rows: Iterable[Mapping[str, Any]], described: Mapping[str, Any]) -> None:
        r"""Writes one shard, a JSON object per row.

        Raises:
            OSError: It cannot be written; the other shards are intact.
            ValueError: Meanwhile, a run with other settings has begun in this folder.
        """
        self._compare(described)
        write_whole(self._file(number), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def rows(self, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
        r"""The rows of some shards, one after the other.

        Raises:
            ValueError: One of the files is damaged.
        """
        for path in map(self._file, numbers):
            with path.open(encoding="utf-8") as lines:
                try:
                    yield from map(json.loads, lines)
                except ValueError as error:
                    raise ValueError(f"{path} is damaged: {error}. {REMEDY}") from error

    def _file(self, number: int) -> Path:
        return self._shards / f"{number:08d}.jsonl"


def _key(row: Any) -> Key | None:
    if not isinstance(row, dict):
        return None
    return row.get("image"), row.get("method"), row.get("generator"), row.get("confidence")


def write_whole(path: Path, text: str) -> None:
    r"""Writes a text as :func:`whole_file` does."""
    with whole_file(path) as file:
        file.write(text)


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    r"""A file that is written under another name, and renamed once all of it is on the disk.

    Raises:
        OSError: It cannot be written; what was there is intact.
    """
    unfinished = path.with_name(path.name + ".tmp")
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        _remove(unfinished)
        raise _explained(error, path) from error


def _remove(path: Path) -> None:
    # What cannot be written to can often not be removed either, and the first error is the one to report.
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def _explained(error: OSError, path: Path) -> OSError:
    advice = "Free some space" if error.errno == errno.ENOSPC else "Choose a folder that can be written to"
    reason = error.strerror or str(error)
    return OSError(f"cannot write {path}: {reason}. {advice}; finished shards are intact, and the same command goes on")


def _differences(found: Any, wanted: Any, place: str = "") -> list[str]:
    """Where two settings differ, as the path to each place and the two values."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            difference
            for name in dict.fromkeys([*found, *wanted])
            for difference in _differences(found.get(name), wanted.get(name), f"{place}.{name}" if place else name)
        ]
    return [] if found == wanted else [f"{place} is {found!r} there and {wanted!r} here"]
