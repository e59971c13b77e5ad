r"""The source of a user's own images: layouts, labels, the split, and what stays in memory."""

from __future__ import annotations

import hashlib
import pickle
import unicodedata
from pathlib import Path

import pytest
import torch
from pictures import draw, table
from torch.utils.data import DataLoader

from captum_dcf.data import images as module
from captum_dcf.data.files import read_images
from captum_dcf.data.images import Images, open_images
from captum_dcf.data.listing import held_out_groups
from captum_dcf.data.sources import SOURCES, labels_of, open_source, read_all

SHAPE = (1, 4, 4)
MANY = [f"{number:03d}.png" for number in range(200)]


def names(dataset: Images) -> list[str]:
    return [path.name for path in dataset.files]


def test_sub_folders_are_classes(tmp_path: Path):
    dataset = open_source("images", draw(tmp_path, "dog/a.png", "cat/b.png", "cat/deeper/c.png"), None, SHAPE)
    assert names(dataset) == ["b.png", "c.png", "a.png"]
    assert dataset.targets == [0, 0, 1]
    assert dataset.classes == ("cat", "dog")
    image, label = dataset[2]
    assert torch.equal(image, read_images([tmp_path / "dog" / "a.png"], SHAPE)[0])
    assert label == 1


def test_sub_folders_named_by_numbers_are_their_labels(tmp_path: Path):
    dataset = open_images(draw(tmp_path, "2/a.png", "10/b.png"), None, SHAPE)
    assert dict(zip(names(dataset), dataset.targets)) == {"a.png": 2, "b.png": 10}
    assert dataset.classes == tuple(str(label) for label in range(11))
    values = open_images(tmp_path, None, SHAPE, labels="value")
    assert (sorted(values.targets), values.classes) == ([2.0, 10.0], None)


def test_a_flat_folder_has_no_labels(tmp_path: Path):
    draw(tmp_path / "faces", "b.PNG", "a.png", ".hidden.png", ".thumbnails/a.png")
    (tmp_path / "faces" / "notes.txt").write_text("no image")
    dataset = open_images(tmp_path / "faces", None, SHAPE)
    assert (names(dataset), dataset.targets, dataset.classes) == (["a.png", "b.PNG"], [0, 0], ("faces",))


@pytest.mark.parametrize("test", ["test", "val"])
@pytest.mark.parametrize(("train_class", "test_class"), [("", ""), ("cat/", "dog/")])
def test_a_folder_may_say_what_to_test_with(tmp_path: Path, test: str, train_class: str, test_class: str):
    draw(tmp_path, f"train/{train_class}a.png", f"train/{test_class}b.png", f"{test}/{test_class}c.png")
    train, held = (open_images(tmp_path, split, SHAPE) for split in ("train", "test"))
    assert (names(train), names(held)) == (["a.png", "b.png"], ["c.png"])
    assert held.classes == train.classes
    assert held.targets == [train.targets[1]]
    assert len(open_images(tmp_path, None, SHAPE)) == 3


def test_a_test_set_has_no_classes_of_its_own(tmp_path: Path):
    draw(tmp_path, "train/cat/a.png", "train/dog/b.png", "test/eel/c.png")
    with pytest.raises(ValueError, match=r"\['cat', 'dog'\].*\['eel'\]"):
        open_images(tmp_path, "test", SHAPE)


def test_a_train_folder_alone_is_split_as_any_other(tmp_path: Path):
    draw(tmp_path / "train", *MANY)
    assert open_images(tmp_path, "test", SHAPE).files == open_images(tmp_path / "train", "test", SHAPE).files
    draw(tmp_path, "car/a.png")
    assert open_images(tmp_path, None, SHAPE).classes == ("car", "train")


def test_a_csv_file_names_images_and_labels(tmp_path: Path):
    draw(tmp_path, "b.png", "deeper/a.png")
    path = table(tmp_path / "labels.csv", "who,File,hair", "x,b.png,brown", "y,deeper/a.png,blond")
    dataset = open_source("images", path, None, SHAPE, column="hair")
    assert (names(dataset), dataset.targets, dataset.classes) == (["b.png", "a.png"], [1, 0], ("blond", "brown"))
    assert open_images(tmp_path, None, SHAPE, column="hair").files == dataset.files
    assert open_images(path, None, SHAPE).targets == [0, 0]


def test_values_of_a_csv_file_are_floats(tmp_path: Path):
    draw(tmp_path, "a.png", "b.png")
    path = table(tmp_path / "labels.csv", "file,age", "a.png,4.5", "b.png,12")
    dataset = open_images(path, None, SHAPE, "age")
    assert (dataset.targets, dataset.classes) == ([4.5, 12.0], None)
    assert labels_of(dataset).dtype == torch.float32


def test_the_split_is_fixed(tmp_path: Path):
    draw(tmp_path, *MANY)
    train, test = (set(names(open_images(tmp_path, split, SHAPE))) for split in ("train", "test"))
    assert train | test == set(MANY)
    assert not train & test
    assert 8 <= len(test) <= 35  # 20 are expected, with a standard deviation of 4
    # By SHA-256 of their names, which is the same on every machine.
    share = {name: hashlib.sha256(name.encode()).digest()[0] / 256 for name in MANY}
    assert max(share[name] for name in test) <= 0.1 <= min(share[name] for name in train) + 1 / 256
    draw(tmp_path, *(f"new {number}.png" for number in range(50)))
    assert set(names(open_images(tmp_path, "test", SHAPE))) & set(MANY) == test
    assert set(names(open_images(tmp_path, "test", SHAPE, holdout=0.3))) > test


def test_a_folder_and_a_csv_file_in_it_are_split_alike_in_any_order(tmp_path: Path):
    draw(tmp_path, *MANY)
    path = table(tmp_path / "labels.csv", "image,x", *(f"{name},{name[2]}" for name in reversed(MANY)))
    assert sorted(names(open_images(path, "test", SHAPE, "x"))) == names(open_images(tmp_path, "test", SHAPE))


def test_groups_are_not_divided(tmp_path: Path):
    draw(tmp_path, *MANY)
    path = table(tmp_path / "labels.csv", "image,patient", *(f"{name},{name[:2]}" for name in MANY))
    train, test = (
        {name[:2] for name in names(open_images(path, split, SHAPE, group="patient"))} for split in ("train", "test")
    )
    assert len(train) + len(test) == 20
    assert train
    assert test


@pytest.mark.parametrize("holdout", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("count", [2, 3, 20])
def test_both_parts_have_a_group(count: int, holdout: float):
    for trial in range(20):
        groups = [f"{trial} {number}" for number in range(count)]
        assert 0 < len(held_out_groups(groups, holdout)) < count


def test_letters_are_hashed_alike_however_they_are_composed():
    composed = [f"\u00e9 {number}" for number in range(60)]
    decomposed = [unicodedata.normalize("NFD", group) for group in composed]
    assert decomposed != composed
    chosen = held_out_groups(composed, 0.3)
    assert {unicodedata.normalize("NFC", group) for group in held_out_groups(decomposed, 0.3)} == chosen


def test_one_group_cannot_be_split_but_opened(tmp_path: Path):
    draw(tmp_path, "a.png", "b.png")
    path = table(tmp_path / "labels.csv", "image,patient", "a.png,61", "b.png,61")
    with pytest.raises(ValueError, match=r"2 images.*'61'.*two groups"):
        open_images(path, "train", SHAPE, group="patient")
    assert len(open_images(path, None, SHAPE, group="patient")) == 2


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"root": None}, "None"),
        ({"image_shape": None}, "None"),
        ({"image_shape": (2, 4, 4)}, r"1 or 3 channels.*\(2, 4, 4\)"),
        ({"image_shape": (1, 0, 4)}, r"1 pixel or more.*\(1, 0, 4\)"),
        ({"image_shape": (4, 4)}, r"\(C, H, W\).*\(4, 4\)"),
        ({"split": "all"}, "'train', 'test' or None, received 'all'"),
        ({"holdout": 0}, "between 0 and 1, received 0"),
        ({"holdout": float("nan")}, "between 0 and 1, received nan"),
        ({"labels": "words"}, "'classes', 'value' or None, received 'words'"),
        ({"column": "age"}, r"'age'.*CSV file.*\[\]"),
        ({"group": "patient"}, r"'patient'.*CSV file.*\[\]"),
        ({"labels": "value"}, "no values.*CSV"),
        ({"labels": "classes"}, "class 'faces'.*two classes"),
    ],
)
def test_what_is_not_accepted_is_named(tmp_path: Path, arguments: dict, received: str):
    draw(tmp_path / "faces", "a.png", "b.png")
    with pytest.raises(ValueError, match=received):
        open_images(**{"root": tmp_path / "faces", "split": "train", "image_shape": SHAPE, **arguments})


def test_which_of_several_csv_files_must_be_said(tmp_path: Path):
    draw(tmp_path, "a.png", "b.png")
    for name in ("one.csv", "two.csv"):
        table(tmp_path / name, "image,x", "a.png,0", "b.png,1")
    with pytest.raises(ValueError, match=r"'x'.*\['one\.csv', 'two\.csv'\]"):
        open_images(tmp_path, None, SHAPE, "x")


@pytest.mark.parametrize(
    ("files", "error", "received"),
    [
        ([], FileNotFoundError, r"0 other files \[\]"),
        (["scan.dcm", "cat/notes.txt"], FileNotFoundError, r"2 other files \['\.dcm', '\.txt'\]"),
        (["a.png", "cat/b.png"], ValueError, r"1 images beside the sub-folders \['cat'\]"),
        (["4/a.png", "cat/b.png"], ValueError, r"'cat'.*numbers only, or words only"),
    ],
)
def test_a_folder_that_is_none_is_named(tmp_path: Path, files: list[str], error: type[Exception], received: str):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("is not read")
    with pytest.raises(error, match=received):
        open_images(tmp_path, "train", SHAPE)


def test_a_place_where_nothing_is_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_images(tmp_path / "nowhere", "train", SHAPE)


def test_labels_that_are_all_the_same_are_no_task(tmp_path: Path):
    draw(tmp_path, "cat/a.png", "cat/b.png")
    assert set(open_images(tmp_path, None, SHAPE).targets) == {0}
    with pytest.raises(ValueError, match=r"class 'cat'.*two classes"):
        open_images(tmp_path, None, SHAPE, labels="classes")
    path = table(tmp_path / "labels.csv", "image,age", "cat/a.png,7", "cat/b.png,7")
    with pytest.raises(ValueError, match=r"value 7.*two classes or values"):
        open_images(path, None, SHAPE, "age", labels="value")


def test_a_file_is_decoded_once_while_all_fit_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    draw(tmp_path, "a.png", "b.png")
    for limit, stays in ((2 * 16, True), (2 * 16 - 1, False)):
        draw(tmp_path, "a.png", "b.png")
        monkeypatch.setattr(module, "MOST_BYTES", limit)
        dataset = open_images(tmp_path, None, SHAPE)
        first, _ = read_all(dataset)
        assert torch.equal(first, read_images(dataset.files, SHAPE))
        draw(tmp_path, "a.png", "b.png", seed=1)
        assert torch.equal(read_all(dataset)[0], first) == stays


def test_a_worker_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dataset = open_images(draw(tmp_path, "a.png", "b.png"), None, SHAPE)
    monkeypatch.setattr(module, "get_worker_info", lambda: "that of a worker")
    first = dataset[0][0]
    draw(tmp_path, "a.png", "b.png", seed=1)
    assert not torch.equal(dataset[0][0], first)


def test_what_is_given_out_is_not_what_stays(tmp_path: Path):
    dataset = open_images(draw(tmp_path, "a.png", "b.png"), None, SHAPE)
    before = dataset[0][0].clone()
    for _ in range(2):
        dataset[0][0].zero_()
    assert torch.equal(dataset[0][0], before)


def test_it_is_read_from_either_end_and_no_further(tmp_path: Path):
    dataset = open_images(draw(tmp_path, "a.png", "b.png"), None, SHAPE)
    assert torch.equal(dataset[-1][0], dataset[1][0])
    with pytest.raises(IndexError):
        dataset[2]


def test_a_pickled_data_set_is_small_and_reads_the_same(tmp_path: Path):
    dataset = open_images(draw(tmp_path, "a.png", "b.png"), None, (3, 200, 200))
    images, _ = read_all(dataset)
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 5000
    assert torch.equal(read_all(pickle.loads(pickled))[0], images)


def test_workers_read_the_same(tmp_path: Path):
    dataset = open_images(draw(tmp_path, *MANY[:6]), None, SHAPE)
    batches = [images for images, _ in DataLoader(dataset, batch_size=4, num_workers=1)]
    assert torch.equal(torch.cat(batches), read_all(dataset)[0])


def test_as_many_targets_as_files():
    with pytest.raises(ValueError, match="received 1 for 2"):
        Images([Path("a.png"), Path("b.png")], [0], ("a",), SHAPE)


def test_labels_of_the_source_are_of_any_kind():
    assert SOURCES["images"].labels == "any"
