from __future__ import annotations

from pathlib import Path

import pytest

from captum_dcf.outputs import new_files, refuse_existing


def test_files_come_together_when_the_block_ends(tmp_path: Path):
    out = tmp_path / "a" / "b"
    with new_files(out, ["one.txt", "two.txt"]) as folder:
        (folder / "one.txt").write_text("1")
        (folder / "two.txt").write_text("2")
        assert not (out / "one.txt").exists()
    assert {path.name: path.read_text() for path in out.iterdir()} == {"one.txt": "1", "two.txt": "2"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_nothing(tmp_path: Path, error: type[BaseException]):
    def write() -> None:
        with new_files(tmp_path, ["one.txt", "two.txt"]) as folder:
            (folder / "one.txt").write_text("1")
            raise error

    with pytest.raises(error):
        write()
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_replaced_only_where_that_is_asked_for(tmp_path: Path):
    mine = tmp_path / "table.md"
    mine.write_text("mine")
    with pytest.raises(FileExistsError, match=r"table\.md is there already"), new_files(tmp_path, ["table.md"]):
        pytest.fail("the block must not begin")
    assert mine.read_text() == "mine"
    with new_files(tmp_path, ["table.md"], overwrite=True) as folder:
        (folder / "table.md").write_text("new")
    assert mine.read_text() == "new"


def test_a_file_that_comes_meanwhile_is_not_replaced(tmp_path: Path):
    def write() -> None:
        with new_files(tmp_path, ["table.md"]) as folder:
            (folder / "table.md").write_text("new")
            (tmp_path / "table.md").write_text("mine")

    with pytest.raises(FileExistsError, match=r"table\.md"):
        write()
    assert (tmp_path / "table.md").read_text() == "mine"


def test_inputs_folders_and_links_are_safe(tmp_path: Path):
    image, same = tmp_path / "image.png", tmp_path / "link.png"
    image.write_text("mine")
    same.hardlink_to(image)
    for path in (image, same):
        with pytest.raises(FileExistsError, match="one of the inputs"):
            refuse_existing([path], inputs=[image], overwrite=True)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(FileExistsError, match="is a folder"):
        refuse_existing([tmp_path / "folder.png"], overwrite=True)
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match=r"broken\.png is there already"):
        refuse_existing([tmp_path / "broken.png"])
    refuse_existing([tmp_path / "new.png"], inputs=[image, tmp_path / "missing.png"])
