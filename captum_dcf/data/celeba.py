r"""CelebA: faces with forty attributes each, from the files that its authors publish.

Liu, Luo, Wang and Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015; for non-commercial research only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from captum_dcf.data.images import Images
from captum_dcf.data.published import Published, unknown_name

__all__ = ["CELEBA", "CelebA", "names_of_split", "open_celeba", "read_attribute", "read_pairs", "text_lines"]

CELEBA = Published("CelebA", "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html")
IMAGE_SHAPE = (3, 64, 64)
SPLITS = {"train": "0", "valid": "1", "test": "2"}


class CelebA(Images):
    r"""The aligned faces of CelebA and whether each has an attribute: 0 if not, 1 if so.

    The layout is torchvision's: ``root/celeba`` holds the folder ``img_align_celeba`` with the 202,599 images, and the
    files ``list_attr_celeba.txt`` and ``list_eval_partition.txt``. Nothing else is read, and no checksums are taken.

    An image of 178×218 pixels is cut to its central 178×178 and resized, so that faces keep their proportions and hair
    is seen. How Dombrowski et al. (2024) cut theirs is not published.

    Args:
        root: The folder that holds ``celeba``.
        split: ``"train"``, ``"valid"`` or ``"test"``, as the authors split them, by person; None for all.
        attribute: One of the forty, such as ``"Blond_Hair"``.
        image_shape: (C, H, W) to which images are brought.

    Raises:
        FileNotFoundError: A file is not there; it is named, with where the authors offer it.
        ValueError: There is no such split or attribute, a file is damaged, or all images have the attribute or none.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | None = "train",
        attribute: str = "Blond_Hair",
        image_shape: Sequence[int] = IMAGE_SHAPE,
    ) -> None:
        folder = Path(root) / "celeba"
        attributes, partition = folder / "list_attr_celeba.txt", folder / "list_eval_partition.txt"
        CELEBA.check_there([attributes, partition, folder / "img_align_celeba"])
        labels = read_attribute(attributes, attribute)
        names = names_of_split(labels, read_pairs(partition), split, partition)
        files, targets = [folder / "img_align_celeba" / name for name in names], [labels[name] for name in names]
        classes = (f"not {attribute}", attribute)
        CELEBA.check_images(files)
        CELEBA.check_classes(targets, classes, attributes)
        super().__init__(files, targets, classes, image_shape, crop=True)


def open_celeba(
    root: str | Path | None, split: str | None, image_shape: Sequence[int] | None, attribute: str = "Blond_Hair"
) -> CelebA:
    r"""The source ``celeba``: :class:`CelebA`, by default of 64×64 pixels and by the colour of the hair."""
    return CelebA(CELEBA.root(root), split, attribute, image_shape or IMAGE_SHAPE)


def read_attribute(path: Path, attribute: str) -> dict[str, int]:
    r"""By image whether it has an attribute, from a list of them: the number of images, the names, a row per image.

    Raises:
        ValueError: There is no such attribute, or the file is damaged; the line is named.
    """
    lines = text_lines(path)
    if len(lines) < 3:
        raise ValueError(f"{path} must hold the number of images, the names of attributes, and a line per image")
    count, names = lines[0], lines[1].split()
    if attribute not in names:
        raise unknown_name("attribute", attribute, names)
    if count.strip() != str(len(lines) - 2):
        raise ValueError(f"{path} is damaged: its first line says {count.strip()} images, and {len(lines) - 2} follow")
    column = 1 + names.index(attribute)
    labels = {}
    for number, line in enumerate(lines[2:], 3):
        row = line.split()
        if len(row) != 1 + len(names) or row[column] not in ("1", "-1"):
            raise ValueError(
                f"{path}, line {number}: expected an image and {len(names)} times 1 or -1, received "
                f"{len(row)} cells, {row[column] if column < len(row) else 'none'!r} for {attribute}"
            )
        labels[row[0]] = int(row[column] == "1")
    return labels


def read_pairs(path: Path) -> dict[str, str]:
    r"""What a file of two cells a line says of each image.

    Raises:
        ValueError: A line has another number of cells; it is named.
    """
    pairs = {}
    for number, line in enumerate(text_lines(path), 1):
        row = line.split()
        if len(row) != 2:
            raise ValueError(f"{path}, line {number}: expected an image and its value, received {row}")
        pairs[row[0]] = row[1]
    return pairs


def names_of_split(names: Iterable[str], partition: dict[str, str], split: str | None, where: Path) -> list[str]:
    r"""The images of a split, in order.

    Raises:
        ValueError: There is no such split, or ``partition`` does not say it of an image.
    """
    names = list(names)
    if split is None:
        return names
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    unsaid = [name for name in names if partition.get(name) not in SPLITS.values()]
    if unsaid:
        received = partition.get(unsaid[0])
        raise ValueError(f"{where} must say 0, 1 or 2 of each image, received {received!r} of {unsaid[0]!r}")
    return [name for name in names if partition[name] == SPLITS[split]]


def text_lines(path: Path) -> list[str]:
    r"""The lines of a text that are not empty.

    Raises:
        ValueError: The file is no text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged, it is no text: {error}") from error
    return [line for line in text.splitlines() if line.strip()]
