r"""What published data sets have in common: an owner, files that must be there, and names that must be known."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from captum_dcf.data.table import enumerate_some

__all__ = ["Published", "unknown_name"]


@dataclass(frozen=True)
class Published:
    r"""A data set that its owner offers, and whose files a user puts into a folder.

    Attributes:
        name: Its name.
        owner: Address where the owner offers it.
    """

    name: str
    owner: str

    def check_there(self, paths: Sequence[Path]) -> None:
        r"""Refuses files or folders of the layout that are not there.

        Raises:
            FileNotFoundError: One is not there; all that are missing are named.
        """
        missing = [str(path) for path in paths if not path.exists()]
        if missing:
            raise self._missing(f"{self.name} is not complete: missing {', '.join(missing)}")

    def check_images(self, files: Sequence[Path]) -> None:
        r"""Refuses image files that a list of the data set names and that are not there.

        Raises:
            FileNotFoundError: One is not there; the first are named.
        """
        missing = [str(file) for file in files if not file.is_file()]
        if missing:
            raise self._missing(
                f"{self.name} is not complete: missing {len(missing):,} of {len(files):,} images, "
                f"{enumerate_some(missing, 3)}"
            )

    def check_classes(self, targets: Sequence[int], classes: Sequence[str], where: Path) -> None:
        r"""Refuses labels that lack one of the classes.

        Raises:
            ValueError: No image is of one of them.
        """
        absent = [name for label, name in enumerate(classes) if label not in targets]
        if absent:
            raise ValueError(f"{where} has no image of {' and none of '.join(map(repr, absent))} in this split")

    def root(self, received: str | Path | None) -> Path:
        r"""The root as a path.

        Raises:
            ValueError: There is none.
        """
        if received is None:
            raise ValueError(f"{self.name} needs root, the folder of its files, received None; its owner: {self.owner}")
        return Path(received)

    def _missing(self, message: str) -> FileNotFoundError:
        return FileNotFoundError(f"{message}. Its owner offers it at {self.owner}")


def unknown_name(kind: str, received: object, known: Collection[str]) -> ValueError:
    r"""The error for a name that is none of those known, with the nearest of them."""
    lowered = {name.lower(): name for name in known}
    # People write spaces where files have underscores, and the other way round.
    spelled = [str(received).lower(), str(received).lower().replace(" ", "_"), str(received).lower().replace("_", " ")]
    near = [lowered[match] for one in spelled for match in get_close_matches(one, lowered, 1)]
    meant = f" (the nearest is {near[0]!r})" if near else ""
    return ValueError(f"no {kind} {received!r}{meant}; known are {', '.join(known)}")
