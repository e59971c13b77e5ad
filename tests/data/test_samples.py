r"""The bundled samples of faces and X-rays, and the folders with the whole of them."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_dcf.data import chest_sample, faces_attributes, faces_sample, mnist_sample
from captum_dcf.data.chest import chest
from captum_dcf.data.faces import faces
from captum_dcf.data.files import write_image

Sample = Callable[[bool], tuple[Tensor, Tensor]]


@pytest.mark.parametrize(
    ("sample", "train", "counts", "shape"),
    [
        (faces_sample, False, [200, 100], (3, 64, 64)),
        (faces_sample, True, [200, 200], (3, 64, 64)),
        (chest_sample, False, [100, 100], (1, 28, 28)),
        (chest_sample, True, [150, 150], (1, 28, 28)),
    ],
)
def test_a_sample_is_what_it_says(sample: Sample, train: bool, counts: list[int], shape: tuple[int, ...]):
    images, labels = sample(train)
    assert images.shape == (sum(counts), *shape)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert labels.tolist() == [label for label in (0, 1) for _ in range(counts[label])]
    assert images.min() >= 0
    assert images.max() <= 1
    # Whole grey levels, of which there are many.
    assert torch.equal((images * 255).round() / 255, images)
    assert len(images.unique()) > 200


@pytest.mark.parametrize("sample", [faces_sample, chest_sample, mnist_sample])
def test_no_image_of_a_test_sample_is_in_the_training_sample(sample: Sample):
    train, test = ({image.numpy().tobytes() for image in sample(part)[0]} for part in (True, False))
    assert len(test) == len(sample(False)[0])
    assert not train & test


@pytest.mark.parametrize("train", [False, True])
def test_faces_are_known_by_their_attributes(train: bool):
    images, labels = faces_sample(train)
    known = faces_attributes(train)
    assert torch.equal(known["blond"], labels)
    for name in ("blond", "smile", "glasses", "beard"):
        assert known[name].dtype == torch.int64
        assert known[name].unique().tolist() == [0, 1]
    assert known["hair"].shape == (len(images), 3)
    # The colour that the hair was drawn with is that of many pixels of the picture.
    near = (images - known["hair"][:, :, None, None]).abs().amax(1) < 0.02
    assert near.flatten(1).sum(1).float().median() > 50
    # Blond is a colour with more red than blue.
    red_over_blue = known["hair"][:, 0] - known["hair"][:, 2]
    assert red_over_blue[labels == 1].min() > 0.1


def test_x_rays_show_chests():
    images, _ = chest_sample(True)
    # The lungs are darker than what lies between them.
    assert images[:, :, 8:16, 13:15].mean() > images[:, :, 8:16, 7:9].mean()


def write_faces(root: Path, zipped: bool) -> None:
    r"""A set of the layout of the whole one, in which face i is of one colour that says i."""
    with (root / "attributes.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["i", "hair", "blond"])
        # Whatever the order of the rows.
        rows.writerows([i, "any", int(i % 5 == 0)] for i in reversed(range(6000)))
    for i in range(5000, 6000):
        write_image(torch.full((3, 64, 64), i % 250 / 255), root / f"{i:05d}.png")
    if zipped:
        with zipfile.ZipFile(root / "images_png.zip", "w") as archive:
            for path in sorted(root.glob("*.png")):
                archive.write(path, path.name)
                path.unlink()


@pytest.mark.parametrize("zipped", [True, False])
def test_the_whole_of_the_faces_is_read(tmp_path: Path, zipped: bool):
    write_faces(tmp_path, zipped)
    images, labels = faces(tmp_path, train=False)
    assert images.shape == (1000, 3, 64, 64)
    assert torch.equal((images[:, 0, 0, 0] * 255).round().long(), torch.arange(5000, 6000) % 250)
    assert torch.equal(labels, (torch.arange(5000, 6000) % 5 == 0).long())
    with pytest.raises(FileNotFoundError, match=r"00000\.png"):
        faces(tmp_path, train=True)


def test_faces_that_are_none_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"attributes\.csv"):
        faces(tmp_path)
    table = tmp_path / "attributes.csv"
    for text, received in (("i,hair\n0,red\n", "blond"), ("i,blond\n0,1\n", "1 rows"), ("i,blond\n0,yes\n", "yes")):
        table.write_text(text)
        with pytest.raises(ValueError, match=received):
            faces(tmp_path)
    table.write_text("i,blond\n" + "".join(f"{i},0\n" for i in range(6000)))
    archive = tmp_path / "images_png.zip"
    archive.write_bytes(b"no zip")
    with pytest.raises(ValueError, match="images_png"):
        faces(tmp_path)
    with zipfile.ZipFile(archive, "w") as images:
        images.writestr("00000.png", b"no image")
    with pytest.raises(ValueError, match=r"00000\.png"):
        faces(tmp_path)


def write_chest(root: Path, **changed: np.ndarray) -> dict[str, np.ndarray]:
    arrays = {
        f"{part}_{what}": values
        for part, count in (("train", 6), ("val", 2), ("test", 4))
        for what, values in (
            ("images", np.arange(count * 784, dtype=np.uint64).astype(np.uint8).reshape(count, 28, 28)),
            ("labels", (np.arange(count, dtype=np.uint8) % 2)[:, None]),
        )
    }
    np.savez(root / "pneumoniamnist.npz", **{**arrays, **changed})
    return arrays


def test_the_whole_of_the_x_rays_is_read(tmp_path: Path):
    written = write_chest(tmp_path)
    for part in ("train", "test"):
        images, labels = chest(tmp_path, train=part == "train")
        assert torch.equal((images * 255).round().byte().squeeze(1), torch.from_numpy(written[f"{part}_images"]))
        assert labels.dtype == torch.int64
        assert torch.equal(labels, torch.from_numpy(written[f"{part}_labels"]).flatten().long())


@pytest.mark.parametrize(
    ("changed", "received"),
    [
        ({"test_images": np.zeros((4, 64, 64), np.uint8)}, r"\(4, 64, 64\)"),
        ({"test_images": np.zeros((4, 28, 28), np.float32)}, "float32"),
        ({"test_labels": np.zeros((3, 1), np.uint8)}, "and 3"),
        ({"test_labels": np.full((4, 1), 7, np.uint8)}, "7"),
    ],
)
def test_x_rays_that_are_none_are_refused(tmp_path: Path, changed: dict[str, np.ndarray], received: str):
    with pytest.raises(FileNotFoundError, match=r"pneumoniamnist\.npz"):
        chest(tmp_path)
    write_chest(tmp_path, **changed)
    with pytest.raises(ValueError, match=received):
        chest(tmp_path, train=False)
    (tmp_path / "pneumoniamnist.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="damaged"):
        chest(tmp_path)
