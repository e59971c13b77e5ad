r"""CelebA and CelebA-HQ in the layouts of their authors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import write_celeba, write_celeba_hq
from PIL import Image

from captum_dcf.data.celeba import CelebA
from captum_dcf.data.celeba_hq import CelebAHQ
from captum_dcf.data.sources import labels_of, of_classes, open_source


def names(dataset: CelebA | CelebAHQ) -> list[str]:
    return [file.name for file in dataset.files]


def test_an_attribute_is_the_label(tmp_path: Path):
    write_celeba(tmp_path)
    blond = CelebA(tmp_path, None, image_shape=(3, 8, 8))
    assert blond.targets == [0, 1] * 6
    assert blond.classes == ("not Blond_Hair", "Blond_Hair")
    smiling = CelebA(tmp_path, None, "Smiling", (3, 8, 8))
    assert smiling.targets == [1, 0, 0] * 4
    image, label = blond[1]
    assert image.shape == (3, 8, 8)
    assert image.dtype == torch.float32
    assert (label, image.mean() > 0.5) == (1, True)


def test_splits_are_those_of_the_authors(tmp_path: Path):
    write_celeba(tmp_path)
    parts = [names(CelebA(tmp_path, split)) for split in ("train", "valid", "test")]
    assert [*parts[0], *parts[1], *parts[2]] == names(CelebA(tmp_path, None))
    assert parts[2] == ["000011.jpg", "000012.jpg"]


def test_faces_are_cut_and_not_distorted(tmp_path: Path):
    write_celeba(tmp_path)
    # A white square in the middle of 218×178 pixels stays one.
    pixels = np.zeros((218, 178, 3), dtype=np.uint8)
    pixels[109 - 40 : 109 + 40, 89 - 40 : 89 + 40] = 255
    Image.fromarray(pixels).save(tmp_path / "celeba" / "img_align_celeba" / "000001.jpg", quality=100)
    image, _ = CelebA(tmp_path, None)[0]
    white = image[0] > 0.5
    assert image.shape == (3, 64, 64)
    for side in (white.any(0).sum(), white.any(1).sum()):
        assert side == pytest.approx(80 * 64 / 178, abs=1.5)


def test_it_is_a_source(tmp_path: Path):
    write_celeba(tmp_path)
    assert labels_of(open_source("celeba", tmp_path, None, (3, 8, 8), attribute="Smiling")).tolist() == [1, 0, 0] * 4
    assert open_source("celeba", tmp_path)[0][0].shape == (3, 64, 64)
    assert len(of_classes(open_source("celeba", tmp_path), [1])) == 4


@pytest.mark.parametrize("missing", ["list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"])
def test_what_is_missing_is_named_with_its_owner(tmp_path: Path, missing: str):
    write_celeba(tmp_path)
    (tmp_path / "celeba" / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=missing) as caught:
        CelebA(tmp_path)
    assert "mmlab.ie.cuhk.edu.hk" in str(caught.value)


def test_images_that_are_missing_are_counted(tmp_path: Path):
    write_celeba(tmp_path)
    for number in (2, 3):
        (tmp_path / "celeba" / "img_align_celeba" / f"{number:06}.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of 8 images.*000002\.jpg"):
        CelebA(tmp_path)
    assert len(CelebA(tmp_path, "test")) == 2


@pytest.mark.parametrize("wanted", ["blond hair", "Blond_hair", "BlondHair"])
def test_an_unknown_attribute_is_answered_with_the_nearest(tmp_path: Path, wanted: str):
    write_celeba(tmp_path)
    with pytest.raises(ValueError, match=f"{wanted!r}.*nearest is 'Blond_Hair'.*Bald, Blond_Hair, Smiling"):
        CelebA(tmp_path, attribute=wanted)


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("list_attr_celeba.txt", "12\n", "13\n", "13 images, and 12"),
        ("list_attr_celeba.txt", "000003.jpg -1 -1", "000003.jpg -1 0", "line 5.*received 4 cells, '0'"),
        ("list_attr_celeba.txt", "000003.jpg -1", "000003.jpg", "line 5.*3 cells"),
        ("list_eval_partition.txt", "000003.jpg 0", "000003.jpg", "line 3"),
        ("list_eval_partition.txt", "000003.jpg 0", "000003.jpg 7", "'7' of '000003.jpg'"),
        ("list_eval_partition.txt", "000003.jpg 0\n", "", "None of '000003.jpg'"),
    ],
)
def test_a_damaged_list_is_refused(tmp_path: Path, file: str, old: str, new: str, says: str):
    write_celeba(tmp_path)
    path = tmp_path / "celeba" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=says):
        CelebA(tmp_path)


def test_lists_that_are_none_are_refused(tmp_path: Path):
    write_celeba(tmp_path)
    path = tmp_path / "celeba" / "list_attr_celeba.txt"
    for content in (b"", b"12\nBald\n", b"\xff\xfe\x00"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=path.name):
            CelebA(tmp_path)


def test_what_no_image_has_is_no_class(tmp_path: Path):
    write_celeba(tmp_path)
    with pytest.raises(ValueError, match="no image of 'Bald'"):
        CelebA(tmp_path, attribute="Bald")
    with pytest.raises(ValueError, match=r"'all'.*train, valid, test"):
        CelebA(tmp_path, "all")
    with pytest.raises(ValueError, match=r"needs root.*None"):
        open_source("celeba")


def test_faces_of_celeba_hq_belong_to_the_split_of_their_originals(tmp_path: Path):
    write_celeba(tmp_path)
    write_celeba_hq(tmp_path)
    # Image i is made of CelebA's 12 - i, and 11 and 12 are to test with.
    assert names(CelebAHQ(tmp_path, "test")) == ["0.jpg", "1.jpg"]
    assert names(CelebAHQ(tmp_path, "valid")) == ["2.jpg", "3.jpg"]
    image, label = CelebAHQ(tmp_path, "test", image_shape=(3, 8, 8))[1]
    assert (image.shape, label) == ((3, 8, 8), 1)


@pytest.mark.parametrize("with_identities", [True, False])
def test_without_the_partition_a_fixed_part_is_held_out(tmp_path: Path, with_identities: bool):
    write_celeba_hq(tmp_path, images=120)
    persons = {f"{number:06}.jpg": number // 2 % 30 for number in range(1, 121)}
    if with_identities:
        lines = [f"{name} {person}" for name, person in persons.items()]
        (tmp_path / "CelebAMask-HQ" / "identity_CelebA.txt").write_text("\n".join(lines))
    train, test = (names(open_source("celeba-hq", tmp_path, split)) for split in ("train", "test"))
    assert len(train) > len(test) > 0
    assert sorted(train + test) == sorted(names(CelebAHQ(tmp_path, None)))
    shared = {persons[f"{120 - int(name[:-4]):06}.jpg"] for name in train} & {
        persons[f"{120 - int(name[:-4]):06}.jpg"] for name in test
    }
    assert bool(shared) is not with_identities
    with pytest.raises(ValueError, match=r"'valid'.*train, test"):
        CelebAHQ(tmp_path, "valid")


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("CelebA-HQ-to-CelebA-mapping.txt", "orig_file", "file", "idx orig_idx orig_file"),
        ("CelebA-HQ-to-CelebA-mapping.txt", "3     8     000009.jpg", "3     8", "line 5"),
        ("CelebA-HQ-to-CelebA-mapping.txt", "3     8     000009.jpg", "99     8     000009.jpg", "'3.jpg'"),
        ("CelebAMask-HQ-attribute-anno.txt", "12\n", "1\n", "1 images, and 12"),
    ],
)
def test_a_damaged_list_of_celeba_hq_is_refused(tmp_path: Path, file: str, old: str, new: str, says: str):
    write_celeba_hq(tmp_path)
    path = tmp_path / "CelebAMask-HQ" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=says):
        CelebAHQ(tmp_path)


def test_what_is_missing_of_celeba_hq_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"CelebA-HQ-img.*switchablenorms"):
        CelebAHQ(tmp_path)
