r"""Folders of images as data sets: order, labels, and what is wrong with a folder or a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("torchvision")

from captum_dcf.data.files import write_image
from captum_dcf.data.folder import ClassFolders, folder_classes
from captum_dcf.data.sources import labels_of, of_classes, open_source, read_all

SHAPE = (1, 4, 4)


def fill(root: Path, **files: float) -> Path:
    r"""Writes grey images, ``cat__b=0.2`` to ``cat/b.png``."""
    for name, grey in files.items():
        path = root.joinpath(*name.strip("_").split("__")).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(torch.full(SHAPE, grey), path)
    return root


def test_images_come_in_order_of_their_names_with_the_numbers_of_their_folders(tmp_path: Path):
    dataset = ClassFolders(fill(tmp_path, _9__b=0.8, _9__a=0.6, _10__c=1.0, _4__z=0.2), SHAPE)
    assert [path.relative_to(tmp_path).as_posix() for path in dataset.files] == [
        "10/c.png",
        "4/z.png",
        "9/a.png",
        "9/b.png",
    ]
    assert dataset.targets == [10, 4, 9, 9]
    assert [(image.mean().item(), label) for image, label in dataset] == [
        (pytest.approx(grey), label) for grey, label in ((1.0, 10), (0.2, 4), (0.6, 9), (0.8, 9))
    ]
    assert all(image.shape == SHAPE and image.dtype == torch.float32 for image, _ in dataset)


def test_words_are_numbered_in_alphabetical_order(tmp_path: Path):
    dataset = ClassFolders(fill(tmp_path, dog__a=0.4, cat__a=0.2, eel__a=0.6), SHAPE)
    assert dataset.classes == {"cat": 0, "dog": 1, "eel": 2}
    assert labels_of(dataset).tolist() == [0, 1, 2]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path):
    fill(tmp_path, cat__a=0.2, dog__deeper__b=0.4)
    for hidden in (".git/x.png", "cat/.DS_Store", "dog/.thumbnails/b.png"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_text("no image")
    assert [path.name for path in ClassFolders(tmp_path, SHAPE).files] == ["a.png", "b.png"]


def test_images_are_resized_and_made_grey_or_coloured(tmp_path: Path):
    dataset = open_source("folder", fill(tmp_path, cat__a=0.2), None, (3, 6, 2))
    assert dataset[0][0].shape == (3, 6, 2)


@pytest.mark.parametrize(
    ("names", "received"),
    [
        (["4", "notes"], r"\['4'\] and \['notes'\]"),
        (["4", "²"], r"\['4'\] and \['²'\]"),
        (["4", "04"], r"\['04', '4'\]"),
        (["1", "99999999999999999999999"], r"9223372036854775807, received \['99999999999999999999999'\]"),
        (["train", "test"], "'train' and 'test'"),
    ],
)
def test_names_that_are_no_classes_are_refused(tmp_path: Path, names: list[str], received: str):
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=received):
        folder_classes(tmp_path)


def test_a_superscript_alone_is_a_word_and_leading_zeros_are_a_number(tmp_path: Path):
    (tmp_path / "²").mkdir()
    assert folder_classes(tmp_path) == {"²": 0}
    (tmp_path / "²").rename(tmp_path / "007")
    assert folder_classes(tmp_path) == {"007": 7}


@pytest.mark.parametrize("made", ["nothing", "the folder", "an empty class", "a file"])
def test_a_folder_without_images_is_named(tmp_path: Path, made: str):
    root = tmp_path / "root"
    if made != "nothing":
        root.mkdir()
    if made == "an empty class":
        (root / "cat").mkdir()
    if made == "a file":
        (root / "cat.png").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=str(root)):
        ClassFolders(root, SHAPE)


def test_every_broken_file_is_named(tmp_path: Path):
    fill(tmp_path, cat__a=0.2, cat__b=0.4, dog__c=0.6)
    (tmp_path / "cat" / "b.png").write_bytes(b"no image")
    (tmp_path / "dog" / "notes.txt").write_text("no image either")
    dataset = ClassFolders(tmp_path, SHAPE)
    with pytest.raises(ValueError, match=r"b\.png"):
        dataset[1]
    with pytest.raises(ValueError, match=r"2 of 4.*b\.png.*notes\.txt"):
        read_all(dataset)


def test_a_whole_folder_is_read(tmp_path: Path):
    images, labels = read_all(ClassFolders(fill(tmp_path, _4__a=0.2, _9__a=0.6), SHAPE))
    assert images.shape == (2, *SHAPE)
    assert labels.dtype == torch.int64
    assert labels.tolist() == [4, 9]


def test_the_test_set_has_the_labels_of_the_training_set(tmp_path: Path):
    fill(tmp_path, train__cat__a=0.2, train__dog__a=0.4, train__eel__a=0.6, test__eel__a=0.6)
    assert labels_of(open_source("folder", tmp_path, "train", SHAPE)).tolist() == [0, 1, 2]
    assert labels_of(open_source("folder", tmp_path, "test", SHAPE)).tolist() == [2]
    fill(tmp_path, test__fox__a=0.6)
    with pytest.raises(ValueError, match=r"\['fox'\].*\['cat', 'dog', 'eel'\]"):
        open_source("folder", tmp_path, "test", SHAPE)


def test_a_folder_without_the_split_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="train"):
        open_source("folder", fill(tmp_path, cat__a=0.2), "train", SHAPE)


@pytest.mark.parametrize(("root", "shape"), [(None, SHAPE), ("somewhere", None)])
def test_a_folder_needs_a_place_and_a_shape(root: str | None, shape: tuple[int, ...] | None):
    with pytest.raises(ValueError, match="root and image_shape, received"):
        open_source("folder", root, None, shape)


def test_some_classes_of_a_folder_are_found_without_reading_it(tmp_path: Path):
    fill(tmp_path, _4__a=0.2, _5__a=0.4, _9__a=0.6)
    (tmp_path / "5" / "a.png").write_bytes(b"no image")
    chosen = of_classes(ClassFolders(tmp_path, SHAPE), [9, 4])
    assert labels_of(chosen).tolist() == [4, 9]
    assert [label for _, label in chosen] == [4, 9]
    with pytest.raises(ValueError, match=r"\[7\].*\[4, 5, 9\]"):
        of_classes(ClassFolders(tmp_path, SHAPE), [7])
