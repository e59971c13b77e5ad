r"""CSV files that name images: what is read, what the labels are, and what is wrong with a row."""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures import draw, table

from captum_dcf.data.table import labels_from, read_table


def labels(*cells: str, kind: str | None = None) -> tuple[list, tuple[str, ...] | None]:
    found = labels_from(cells, kind, [f"line {place + 2}" for place in range(len(cells))], "the column 'x'")
    return found.targets, found.classes


@pytest.mark.parametrize(
    "header", ["x,file,g", "x,Filename,g", "x,IMAGE,g", "x,path,g"], ids=["file", "filename", "image", "path"]
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_column_of_the_files_is_found(tmp_path: Path, header: str, separator: str):
    draw(tmp_path, "a, b.png", "deeper/c.png")
    rows = [header, '1,"a, b.png",one', "2,deeper/c.png,two"]
    path = table(
        tmp_path / "labels.csv", *(row.replace(",", separator).replace(f"a{separator} b", "a, b") for row in rows)
    )
    found = read_table(path, "x", "g")
    assert found.files == [tmp_path / "a, b.png", tmp_path / "deeper" / "c.png"]
    assert (found.cells, found.groups, found.lines) == (["1", "2"], ["one", "two"], [2, 3])


def test_else_the_first_column_names_the_files(tmp_path: Path):
    draw(tmp_path, "a.png", "b.png")
    found = read_table(
        table(tmp_path / "labels.csv", "Image Index,x", "a.png,0", "", f"{tmp_path / 'b.png'},1"), None, None
    )
    assert found.files == [tmp_path / "a.png", tmp_path / "b.png"]
    assert (found.cells, found.groups, found.lines) == (None, None, [2, 4])


def test_a_byte_order_mark_and_line_ends_of_windows_are_no_matter(tmp_path: Path):
    draw(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_bytes(b"\xef\xbb\xbfx,file\r\n 3 ,a.png\r\n")
    found = read_table(tmp_path / "labels.csv", "x", None)
    assert (found.files, found.cells) == ([tmp_path / "a.png"], ["3"])


@pytest.mark.parametrize(
    ("rows", "received"),
    [
        (["file,x", "a.png,"], r"1 of 1 rows.*line 2 has no 'x'"),
        (["file,x", "a.png"], r"line 2 has no 'x'"),
        (["file,x", ",3"], r"line 2 has no 'file'"),
        (["file,x", "a.png,1", "b.png,2"], r"1 of 2 rows.*line 3.*b\.png'"),
        (["file,x", "a.png,1", "./a.png,2"], r"line 3.*line 2 too"),
        (["file,x", "a.png,1,2"], r"line 2 has 3 cells, the header 2"),
        (["file,x"], r"received 1 lines"),
        ([], r"received 0 lines"),
        (["a.png,0"], r"received 1 lines"),
        (["a.png,0", "a.png,1"], r"first line.*\['a\.png', '0'\]"),
        (["file,y", "a.png,0"], r"'x'.*\['file', 'y'\]"),
        (["file,x,x", "a.png,0,1"], r"'x'.*\['file', 'x', 'x'\]"),
        (["file,x", 'a.png,"1'], "CSV"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, rows: list[str], received: str):
    draw(tmp_path, "a.png")
    with pytest.raises(ValueError, match=received):
        read_table(table(tmp_path / "labels.csv", *rows), "x", None)


def test_of_many_wrong_rows_the_first_are_named(tmp_path: Path):
    path = table(tmp_path / "labels.csv", "file", *(f"{number}.png" for number in range(50)))
    with pytest.raises(ValueError, match=r"50 of 50 rows.*line 2.*line 21.*and 30 more") as error:
        read_table(path, None, None)
    assert "line 22" not in str(error.value)


def test_what_is_no_text_is_no_table(tmp_path: Path):
    path = draw(tmp_path, "a.png") / "a.png"
    with pytest.raises(ValueError, match=r"a\.png' is no CSV file in UTF-8"):
        read_table(path, None, None)


def test_words_are_classes_in_alphabetical_order():
    assert labels("no", "yes", "no", "maybe") == ([1, 2, 1, 0], ("maybe", "no", "yes"))
    assert labels("1_0", "2_0") == ([0, 1], ("1_0", "2_0"))


@pytest.mark.parametrize("cells", [("0", "1", "1"), ("1.0", "0.0"), ("2", "0", "1"), ("0", "0")])
def test_few_whole_numbers_from_zero_on_are_classes(cells: tuple[str, ...]):
    numbers = [int(float(cell)) for cell in cells]
    assert labels(*cells) == (numbers, tuple(str(label) for label in range(max(numbers) + 1)))


@pytest.mark.parametrize("cells", [("0", "2"), ("1", "2"), ("-1", "1"), ("0.5", "1"), tuple(map(str, range(21)))])
def test_other_numbers_are_values(cells: tuple[str, ...]):
    assert labels(*cells) == ([float(cell) for cell in cells], None)


def test_twenty_numbers_are_classes_still():
    assert labels(*map(str, range(20)))[1] is not None


def test_numbers_are_what_the_caller_needs():
    assert labels("0", "1", kind="value") == ([0.0, 1.0], None)
    assert labels("9", "4", kind="classes") == ([9, 4], tuple("0123456789"))
    assert labels("1", "-1", kind="classes") == ([1, 0], ("-1", "1"))
    assert labels("2020", "2019.5", kind="classes") == ([1, 0], ("2019.5", "2020"))


@pytest.mark.parametrize(
    ("cells", "kind", "received"),
    [
        (("1", "old", "2"), "value", r"1 of 3.*line 3: 'old'.*numbers only"),
        (("1", "NA", "0"), None, r"1 of 3.*line 3: 'NA'.*or words only"),
        (("1", "nan", "0"), "classes", r"line 3: 'nan'"),
        (("1", "inf"), "value", r"line 3: 'inf'"),
        (("a",) * 9, "value", r"9 of 9.*line 6: 'a'; and 4 more"),
        (
            tuple(f"{number / 7}" for number in range(21)),
            "classes",
            r"21 different numbers from 0 to 2\.8.*20 different",
        ),
    ],
)
def test_labels_that_are_neither_are_refused(cells: tuple[str, ...], kind: str | None, received: str):
    with pytest.raises(ValueError, match=received):
        labels(*cells, kind=kind)
