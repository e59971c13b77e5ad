r"""Files that a command writes: all of them or none, and never over a file that was there before."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["new_files", "refuse_existing"]


def refuse_existing(paths: Iterable[Path], inputs: Iterable[Path] = (), overwrite: bool = False) -> None:
    r"""Makes sure that writing replaces no file; to be asked before the work begins.

    Args:
        paths: Files that are to be written.
        inputs: Files that are read, which must not be written even with ``overwrite``.
        overwrite: Whether other files may be replaced.

    Raises:
        FileExistsError: One of ``paths`` is there already.
    """
    read = [path for path in inputs if path.exists()]
    for path in paths:
        if any(path.exists() and path.samefile(one) for one in read):
            raise FileExistsError(f"{path} is one of the inputs, which are never replaced: choose another folder")
        if path.is_dir():
            raise FileExistsError(f"{path} is a folder, and a file of that name is to be written")
        # A link that leads nowhere does not exist, and would be replaced all the same.
        if (path.exists() or path.is_symlink()) and not overwrite:
            raise FileExistsError(f"{path} is there already: choose another folder, or ask to overwrite it")


@contextmanager
def new_files(
    folder: Path, names: Sequence[str], inputs: Sequence[Path] = (), overwrite: bool = False
) -> Iterator[Path]:
    r"""A block that makes files of a folder: all of them or, where it raises, none.

    Args:
        folder: Where the files come; made if there is none.
        names: Names of all files that the block writes.
        inputs: Files that the block reads, see :func:`refuse_existing`.
        overwrite: Whether files of these names may be replaced.

    Yields:
        A temporary folder to write them to. They are moved to ``folder`` when the block ends.

    Raises:
        FileExistsError: One of the files is there already, before the block or when it ends.
        OSError: Nothing can be written to ``folder``.
    """
    paths = [folder / name for name in names]
    refuse_existing(paths, inputs, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as unfinished:
        yield Path(unfinished)
        refuse_existing(paths, inputs, overwrite)
        for path in paths:
            (Path(unfinished) / path.name).replace(path)
