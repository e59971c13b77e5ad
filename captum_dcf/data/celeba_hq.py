r"""CelebA-HQ: 30,000 faces of CelebA at 1024×1024, from the files of CelebAMask-HQ.

Lee, Liu, Wu and Luo, "MaskGAN: Towards Diverse and Interactive Facial Image Manipulation", CVPR 2020; for
non-commercial research only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from captum_dcf.data.celeba import names_of_split, read_attribute, read_pairs, text_lines
from captum_dcf.data.images import Images
from captum_dcf.data.listing import held_out_groups
from captum_dcf.data.published import Published, unknown_name

__all__ = ["CelebAHQ", "open_celeba_hq"]

CELEBA_HQ = Published("CelebA-HQ", "https://github.com/switchablenorms/CelebAMask-HQ")
IMAGE_SHAPE = (3, 256, 256)
MAPPING_HEADER = ["idx", "orig_idx", "orig_file"]


class CelebAHQ(Images):
    r"""The faces of CelebA-HQ and whether each has an attribute: 0 if not, 1 if so.

    ``root/CelebAMask-HQ`` holds the folder ``CelebA-HQ-img`` with ``0.jpg`` to ``29999.jpg``, and the files
    ``CelebAMask-HQ-attribute-anno.txt`` and ``CelebA-HQ-to-CelebA-mapping.txt``.

    Where ``list_eval_partition.txt`` of CelebA lies beside these, or in ``root/celeba``, a face belongs to the split of
    the image of CelebA that it was made of. Otherwise a fixed tenth is the test set and the rest the training set: a
    tenth of the persons where ``identity_CelebA.txt`` lies there, and else of the images, so that a person may be in
    both.

    Args:
        root: The folder that holds ``CelebAMask-HQ``.
        split: ``"train"``, ``"valid"`` (by CelebA's partition only) or ``"test"``; None for all.
        attribute: One of the forty of CelebA, such as ``"Blond_Hair"``.
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
        folder = Path(root) / "CelebAMask-HQ"
        attributes = folder / "CelebAMask-HQ-attribute-anno.txt"
        mapping = folder / "CelebA-HQ-to-CelebA-mapping.txt"
        CELEBA_HQ.check_there([attributes, mapping, folder / "CelebA-HQ-img"])
        labels = read_attribute(attributes, attribute)
        names = _split(list(labels), _originals(mapping), split, [folder, Path(root) / "celeba"])
        files, targets = [folder / "CelebA-HQ-img" / name for name in names], [labels[name] for name in names]
        classes = (f"not {attribute}", attribute)
        CELEBA_HQ.check_images(files)
        CELEBA_HQ.check_classes(targets, classes, attributes)
        super().__init__(files, targets, classes, image_shape)


def open_celeba_hq(
    root: str | Path | None, split: str | None, image_shape: Sequence[int] | None, attribute: str = "Blond_Hair"
) -> CelebAHQ:
    r"""The source ``celeba-hq``: :class:`CelebAHQ`, by default of 256×256 pixels and by the colour of the hair."""
    return CelebAHQ(CELEBA_HQ.root(root), split, attribute, image_shape or IMAGE_SHAPE)


def _originals(path: Path) -> dict[str, str]:
    """By image the image of CelebA that it was made of."""
    header, *rows = [line.split() for line in text_lines(path)] or [[]]
    if header != MAPPING_HEADER:
        raise ValueError(f"{path} must begin with {' '.join(MAPPING_HEADER)}, received {' '.join(header)!r}")
    for number, row in enumerate(rows, 2):
        if len(row) != 3:
            raise ValueError(f"{path}, line {number}: expected {' '.join(MAPPING_HEADER)}, received {row}")
    return {f"{index}.jpg": original for index, _, original in rows}


def _split(names: list[str], originals: dict[str, str], split: str | None, folders: Sequence[Path]) -> list[str]:
    if split is None:
        return names
    unsaid = [name for name in names if name not in originals]
    if unsaid:
        raise ValueError(f"CelebA-HQ-to-CelebA-mapping.txt does not say of {unsaid[0]!r} what it was made of")
    partition = _first(folders, "list_eval_partition.txt")
    if partition is not None:
        said = read_pairs(partition)
        return names_of_split(names, {name: said.get(originals[name], "") for name in names}, split, partition)
    if split not in ("train", "test"):
        raise unknown_name("split", split, ("train", "test"))
    identity = _first(folders, "identity_CelebA.txt")
    persons = {} if identity is None else read_pairs(identity)
    groups = [persons.get(originals[name], name) for name in names]
    held_out = held_out_groups(groups, 0.1)
    return [name for name, group in zip(names, groups) if (group in held_out) == (split == "test")]


def _first(folders: Sequence[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)
