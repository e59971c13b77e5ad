from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from captum_dcf.benchmark import Method, Plan, reach, run

PLAN = Plan(
    images=TensorDataset(torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(8).long()),
    model=lambda x: x.flatten(1)[:, :3],
    goal=reach(2),
    methods=[Method("same", lambda x, t: x)],
    metrics={"mean": lambda case: case.counterfactuals.flatten(1).mean(1)},
    shard_size=2,
    settings={"weight": 0.1},
)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"goal": reach(1)}, r"goal is .*\[2\].* there and .*\[1\].* here"),
        ({"seed": 5}, "seed is 0 there and 5 here"),
        ({"settings": {"weight": 0.2}}, "settings.weight is 0.1 there and 0.2 here"),
        ({"settings": {}}, "settings.weight is 0.1 there and None here"),
        ({"metrics": {}}, r"metrics is \['mean'\] there and \[\] here"),
        ({"methods": [Method("other", lambda x, t: x)]}, "methods is"),
        ({"shard_size": 3, "goal": reach(0)}, r"goal is .*\[0\].* here; shard_size is 2 there and 3 here"),
    ],
)
def test_another_setting_in_the_same_folder_is_refused(tmp_path, changed, says):
    run(PLAN, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=says):
        run(replace(PLAN, **changed), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_on_a_full_disk_finished_shards_are_intact_and_the_run_goes_on(tmp_path, monkeypatch):
    real, written = os.fsync, []

    def full_after_two_shards(descriptor):
        written.append(descriptor)
        # The first file is settings.json.
        if len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("os.fsync", full_after_two_shards)
    with pytest.raises(OSError, match=r"00000002.jsonl: No space left on device.*intact"):
        run(PLAN, tmp_path / "out")
    shards = tmp_path / "out" / "shards"
    assert [path.name for path in sorted(shards.iterdir())] == ["00000000.jsonl", "00000001.jsonl"]
    monkeypatch.setattr("os.fsync", real)
    finished = (tmp_path / "out" / "shards" / "00000001.jsonl").stat().st_mtime_ns
    out = run(PLAN, tmp_path / "out")
    assert len((out / "table.csv").read_text(encoding="utf-8").splitlines()) == 9
    assert (out / "shards" / "00000001.jsonl").stat().st_mtime_ns == finished


def test_a_table_that_does_not_fit_on_the_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("captum_dcf.benchmark.tables.csv.writer", full)
        with pytest.raises(OSError, match=r"table.csv: No space left"):
            run(PLAN, tmp_path)
    assert not (tmp_path / "table.csv").exists()
    assert not list(tmp_path.rglob("*.tmp"))
    run(PLAN, tmp_path)
    assert (tmp_path / "table.csv").exists()


def test_a_folder_that_cannot_be_written_to_is_a_clear_error_before_anything_is_searched(tmp_path, monkeypatch):
    def never(x, t):
        raise AssertionError("searched")

    def read_only(self, *arguments, **others):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(OSError, match=r"cannot write.*Read-only file system"):
        run(replace(PLAN, methods=[Method("never", never)]), tmp_path / "out")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OSError, match="Permission denied"):
            run(PLAN, tmp_path / "out")
    finally:
        tmp_path.chmod(0o700)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OSError, match="cannot write"):
        run(PLAN, tmp_path / "out")


def test_shards_whose_settings_are_gone_are_nobodys(tmp_path):
    run(PLAN, tmp_path)
    (tmp_path / "settings.json").unlink()
    with pytest.raises(ValueError, match=r"shards of a run whose settings.json is gone"):
        run(PLAN, tmp_path)


def test_the_number_of_threads_is_a_setting(tmp_path, monkeypatch):
    run(PLAN, tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    with pytest.raises(ValueError, match=r"threads is \d+ there and 77 here"):
        run(PLAN, tmp_path)


def shard(folder, number):
    return folder / "shards" / f"{number:08d}.jsonl"


def lose_all(path):
    path.write_text("")


def lose_a_row(path):
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")


def lose_half_a_row(path):
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")


def become_garbage(path):
    path.write_bytes(b"\xff\xfe\x00")


def become_a_list(path):
    path.write_text("[1]\n[2]\n")


def become_another(path):
    path.write_bytes(shard(path.parents[1], 0).read_bytes())


@pytest.mark.parametrize(
    "damage", [lose_all, lose_a_row, lose_half_a_row, become_garbage, become_a_list, become_another]
)
def test_a_damaged_shard_is_named_and_made_again_once_it_is_deleted(tmp_path, damage):
    run(PLAN, tmp_path)
    table = (tmp_path / "table.csv").read_text(encoding="utf-8")
    damage(shard(tmp_path, 2))
    with pytest.raises(ValueError, match=r"00000002.jsonl is damaged.*Delete it"):
        run(PLAN, tmp_path)
    shard(tmp_path, 2).unlink()
    run(PLAN, tmp_path)
    assert len((tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()) == len(table.splitlines())


def test_other_files_among_the_shards_are_not_read(tmp_path):
    run(PLAN, tmp_path)
    table = (tmp_path / "table.csv").read_text(encoding="utf-8")
    shard(tmp_path, 99).write_bytes(shard(tmp_path, 0).read_bytes())
    (tmp_path / "shards" / "notes.jsonl").write_text('{"a": 1}\n')
    run(PLAN, tmp_path)
    assert (tmp_path / "table.csv").read_text(encoding="utf-8") == table


@pytest.mark.parametrize("text", ["{", "[]"])
def test_damaged_settings_are_named(tmp_path, text):
    run(PLAN, tmp_path)
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ValueError, match=r"settings.json is damaged"):
        run(PLAN, tmp_path)


def test_a_folder_without_a_shard_is_claimed_anew(tmp_path):
    def fails(x, t):
        raise RuntimeError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        run(replace(PLAN, methods=[Method("same", fails)], settings={"weight": 3}), tmp_path)
    run(PLAN, tmp_path)
    assert '"weight": 0.1' in (tmp_path / "settings.json").read_text(encoding="utf-8")


def test_a_run_that_lost_its_folder_to_another_writes_nothing_into_it(tmp_path):
    def is_overtaken(x, t):
        (tmp_path / "settings.json").write_text('{"seed": 1}')
        return x

    with pytest.raises(ValueError, match="seed is 1 there and 0 here"):
        run(replace(PLAN, methods=[Method("same", is_overtaken)]), tmp_path)
    assert not list((tmp_path / "shards").iterdir())


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "Free some space"), (errno.EROFS, "Choose a folder that can be written to")]
)
def test_advice_fits_the_error(tmp_path, monkeypatch, number, advice):
    def fails(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match=advice):
        run(PLAN, tmp_path)
