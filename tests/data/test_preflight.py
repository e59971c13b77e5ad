r"""The look at every image before a training: what it counts, what it warns of, what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import draw, table
from PIL import Image

from captum_dcf.data.preflight import Summary, check_images

ENOUGH = [f"{number:03d}.png" for number in range(120)]


def of_classes(root: Path, *names: str) -> Path:
    return draw(root, *(f"{name}/{number:02d}.png" for name in names for number in range(60)))


def paint(path: Path, values: np.ndarray, **arguments: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path, **arguments)


def test_a_good_folder_gives_numbers_and_no_warning(tmp_path: Path):
    seen: list[tuple[int, int]] = []
    summary = check_images(of_classes(tmp_path, "cat", "dog"), progress=lambda *numbers: seen.append(numbers))
    assert summary.count == summary.groups == 120
    assert 0 < summary.held_out < 40
    assert (summary.classes, summary.counts, summary.values) == (("cat", "dog"), (60, 60), None)
    assert (summary.sizes, summary.channels, summary.warnings) == (((4, 4), (4, 4)), 1, ())
    assert seen == [(number, 120) for number in range(1, 121)]
    assert str(summary) == f"120 images (cat: 60, dog: 60), 4×4, grey; {summary.held_out} held out"


def test_values_and_groups_are_summed_up(tmp_path: Path):
    draw(tmp_path, *ENOUGH)
    rows = [f"{name},{number / 4},{number % 12}" for number, name in enumerate(ENOUGH)]
    summary = check_images(table(tmp_path / "labels.csv", "file,age,patient", *rows), "age", "patient")
    assert (summary.values, summary.classes, summary.counts) == ((0, 29.75), None, ())
    assert summary.groups == 12
    assert "values from 0 to 29.75" in str(summary)
    assert "12 groups" in str(summary)


def test_grey_images_stored_as_colour_are_grey(tmp_path: Path):
    values = np.random.default_rng(0).integers(0, 256, (4, 4, 1)).repeat(3, 2)
    paint(tmp_path / "a.png", values)
    paint(tmp_path / "b.png", 255 - values)
    assert check_images(tmp_path).channels == 1
    values[1, 2, 0] ^= 1
    paint(tmp_path / "b.png", values)
    summary = check_images(tmp_path)
    assert summary.channels == 3
    assert any("1 of 2 images have colours" in warning and "b.png" in warning for warning in summary.warnings)


def test_every_broken_file_is_named_with_what_is_wrong(tmp_path: Path):
    draw(tmp_path, "good.png", "also good.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no image")
    paint(tmp_path / "clear.png", np.zeros((4, 4, 4)))
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"4 of 6 images") as error:
        check_images(tmp_path)
    for name, said in (("empty", "0 bytes"), ("text", "no format"), ("clear", "on a background"), ("cut", "cut.png'")):
        assert any(name in part and said in part for part in str(error.value).split("; "))
    assert "good.png" not in str(error.value)


def test_of_many_broken_files_twenty_are_named(tmp_path: Path):
    for number in range(25):
        (tmp_path / f"{number:02d}.png").write_text("no image")
    with pytest.raises(ValueError, match=r"25 of 25.*00\.png.*19\.png.*and 5 more") as error:
        check_images(tmp_path)
    assert "20.png" not in str(error.value)


def test_two_images_are_few(tmp_path: Path):
    summary = check_images(draw(tmp_path, "a.png", "b.png"))
    assert (summary.count, summary.held_out) == (2, 1)
    assert any(warning.startswith("2 images are few: 100") for warning in summary.warnings)


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (lambda root: paint(root / "cat" / "x.png", np.eye(9) * 255), "sizes differ: the longer side is 4 to 9"),
        (lambda root: paint(root / "cat" / "x.png", np.eye(4, 8) * 255), "shapes differ: width / height is 1 to 2"),
        (lambda root: draw(root, "eel/x.png", seed=5), "classes without 10 images: eel"),
        (lambda root: (root / "cat" / "notes.txt").write_text("no image"), "not used: cat/notes.txt"),
        (
            lambda root: Image.new("L", (4, 4)).save(
                root / "cat" / "x.gif", save_all=True, append_images=[Image.new("L", (4, 4), 255)]
            ),
            "the first of several frames counts in 1 files",
        ),
    ],
    ids=["size", "shape", "few", "others", "frames"],
)
def test_what_is_odd_is_a_warning(tmp_path: Path, change: object, warning: str):
    change(of_classes(tmp_path, "cat", "dog"))  # type: ignore[operator]
    assert any(warning in one for one in check_images(tmp_path).warnings)


def test_one_class_is_a_warning_unless_classes_are_needed(tmp_path: Path):
    of_classes(tmp_path, "cat")
    assert any("one class, 'cat'" in warning for warning in check_images(tmp_path).warnings)
    with pytest.raises(ValueError, match=r"class 'cat'.*two classes"):
        check_images(tmp_path, labels="classes")


def test_classes_that_are_on_one_side_only_are_named(tmp_path: Path):
    draw(tmp_path, *(f"{part}/{number}.png" for part in ("train/a", "train/b", "test/a") for number in range(12)))
    assert any(warning == "classes without images to test with: b" for warning in check_images(tmp_path).warnings)


def test_dark_images_are_a_warning(tmp_path: Path):
    values = np.arange(16).reshape(4, 4) % 2 * 15
    paint(tmp_path / "a.png", values)
    paint(tmp_path / "b.png", values.T)
    assert any("brighter than 15 of 255" in warning for warning in check_images(tmp_path).warnings)


def test_the_same_content_on_both_sides_or_with_two_labels_is_a_warning(tmp_path: Path):
    draw(tmp_path, "train/cat/a.png", "train/dog/b.png", "test/dog/c.png")
    assert not any("same image" in warning for warning in check_images(tmp_path).warnings)
    with Image.open(tmp_path / "train" / "cat" / "a.png") as image:
        # The same pixels in another kind of file.
        image.convert("RGB").save(tmp_path / "test" / "dog" / "c.bmp")
    found = [warning for warning in check_images(tmp_path).warnings if "same image" in warning]
    assert len(found) == 2
    assert all("a.png" in warning and "c.bmp" in warning for warning in found)


def test_images_of_other_shapes_are_not_the_same(tmp_path: Path):
    paint(tmp_path / "train" / "cat" / "a.png", np.full((4, 4), 99))
    paint(tmp_path / "test" / "cat" / "b.png", np.full((2, 8), 99))
    assert not any("same image" in warning for warning in check_images(tmp_path).warnings)


def test_numbers_that_are_no_class_are_named(tmp_path: Path):
    found = [warning for warning in check_images(of_classes(tmp_path, "1", "3")).warnings if "classes" in warning]
    assert found == ["classes without images: 0; 2"]


def test_one_group_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"1 images.*'a\.png'.*two groups"):
        check_images(draw(tmp_path, "a.png"))


def test_warnings_are_lines_of_the_text():
    summary = Summary(2, 1, 2, ("a", "b"), (2, 0), None, ((4, 4), (8, 9)), 3, ("one", "two"))
    assert str(summary).splitlines() == [
        "2 images (a: 2), 4×4 to 8×9, colour; 1 held out",
        "warning: one",
        "warning: two",
    ]
