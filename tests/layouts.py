r"""Small folders in the layouts of the published data sets: a few images of noise, with real names of files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from captum_dcf.data.files import write_image

ATTRIBUTES = ("Bald", "Blond_Hair", "Smiling")
FINDINGS = ("No Finding", "Cardiomegaly", "Edema")


def write_celeba(root: Path, images: int = 12, size: tuple[int, int] = (22, 18)) -> None:
    r"""CelebA: every second face is blond, and bright; of six, four are to train, one to validate and one to test."""
    names = [f"{number:06}.jpg" for number in range(1, images + 1)]
    folder = root / "celeba"
    _write_noise(folder / "img_align_celeba", names, (3, *size), bright=[number % 2 == 1 for number in range(images)])
    attributes = [f"{name} {' '.join(_signs(number))}" for number, name in enumerate(names)]
    _lines(folder / "list_attr_celeba.txt", [str(images), " ".join(ATTRIBUTES), *attributes])
    # Pairs, so that each split has both.
    sides = (0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2)
    _lines(folder / "list_eval_partition.txt", [f"{name} {sides[n % 12]}" for n, name in enumerate(names)])


def write_celeba_hq(root: Path, images: int = 12) -> None:
    r"""CelebA-HQ: image i is made of CelebA's image ``images - i``."""
    names = [f"{number}.jpg" for number in range(images)]
    folder = root / "CelebAMask-HQ"
    _write_noise(folder / "CelebA-HQ-img", names, (3, 20, 20))
    # As the original has it, two spaces after the name.
    attributes = [f"{name}  {' '.join(_signs(number))}" for number, name in enumerate(names)]
    _lines(folder / "CelebAMask-HQ-attribute-anno.txt", [str(images), " ".join(ATTRIBUTES), *attributes])
    made_of = [f"{n}     {images - n - 1}     {images - n:06}.jpg" for n in range(images)]
    _lines(folder / "CelebA-HQ-to-CelebA-mapping.txt", ["idx     orig_idx     orig_file", *made_of])


def write_chexpert(root: Path, rows: Sequence[tuple[str, Mapping[str, str]]], table: str = "train") -> None:
    r"""CheXpert: ``rows`` are paths below the folder of the table, and marks by finding; the other cells are empty."""
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS]
    lines = [",".join(header)]
    for path, marks in rows:
        view = "Lateral" if "lateral" in path else "Frontal"
        place = f"CheXpert-v1.0-small/{table}/{path}"
        lines.append(",".join([place, "Female", "68", view, "AP", *(marks.get(name, "") for name in FINDINGS)]))
        _write_noise((root / place).parent, [Path(path).name], (1, 16, 20))
    _lines(root / "CheXpert-v1.0-small" / f"{table}.csv", lines)


def write_nih_chest(
    root: Path, rows: Sequence[tuple[str, str, str]], lists: tuple[Iterable[str], Iterable[str]] | None = None
) -> None:
    r"""ChestX-ray14: ``rows`` are names, findings and ages; the patient is the first part of a name.

    ``lists`` are those to train with and those to test with.
    """
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    lines = [f"{name},{findings},0,{int(name[:8])},{age},F,PA" for name, findings, age in rows]
    _lines(root / "Data_Entry_2017.csv", [header, *lines])
    for number, (name, _, _) in enumerate(rows):
        _write_noise(root / f"images_{1 + number % 2:03}" / "images", [name], (1, 16, 16))
    for name, images in zip(("train_val_list.txt", "test_list.txt"), lists or ()):
        _lines(root / name, images)


def _signs(number: int) -> tuple[str, ...]:
    return ("-1", "1" if number % 2 else "-1", "1" if number % 3 == 0 else "-1")


def _write_noise(folder: Path, names: Sequence[str], shape: tuple[int, ...], bright: Sequence[bool] = ()) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    source = torch.Generator().manual_seed(len(names))
    for number, name in enumerate(names):
        noise = 0.4 * torch.rand(shape, generator=source)
        write_image(noise + 0.5 if bright and bright[number] else noise, folder / name)


def _lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
