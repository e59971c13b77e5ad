from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from benchmark.toy_run import IMAGES, plan

import captum_dcf
from captum_dcf.benchmark import run
from captum_dcf.benchmark.processes import local_device

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")

PROGRAM = Path(__file__).with_name("toy_run.py")
# What depends on the machine and the hour.
MEASURED = ("seconds", "memory_mib")


def table(out):
    with (out / "table.csv").open(encoding="utf-8", newline="") as file:
        return [{name: value for name, value in row.items() if name not in MEASURED} for row in csv.DictReader(file)]


def explained(log):
    return Counter(map(int, log.read_text(encoding="utf-8").split()))


def start(count, *arguments):
    # gloo listens on the loopback device, wherever the host's name leads.
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    # The processes run what these tests import, whatever is installed.
    package = str(Path(captum_dcf.__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback, "PYTHONPATH": package}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [*(launcher if count > 1 else [sys.executable]), str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def by_one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    out = run(plan(folder / "log"), folder / "out")
    assert set(explained(folder / "log").values()) == {1}
    return table(out)


def test_two_processes_of_which_one_is_killed_and_started_again_give_the_table_of_one(tmp_path, by_one):
    out, log = tmp_path / "out", tmp_path / "log"
    killed = start(2, out, log, 13)
    assert killed.returncode != 0
    assert not (out / "table.csv").exists()
    done = explained(log)
    finished = {path.name: path.stat().st_mtime_ns for path in (out / "shards").glob("*.jsonl")}
    assert finished, "the one that was killed had finished shards before"
    assert "00000003.jsonl" not in finished

    again = start(2, out, log)
    assert again.returncode == 0, again.stderr
    assert table(out) == by_one
    for name, written in finished.items():
        assert (out / "shards" / name).stat().st_mtime_ns == written
        for line in (out / "shards" / name).read_text(encoding="utf-8").splitlines():
            number = json.loads(line)["image"]
            assert explained(log)[number] == done[number] == 1


def test_a_single_process_that_is_killed_goes_on(tmp_path, by_one):
    out, log = tmp_path / "out", tmp_path / "log"
    assert start(1, out, log, 9).returncode == -9
    assert explained(log) == Counter(range(8))
    assert start(1, out, log).returncode == 0
    assert explained(log) == Counter(range(IMAGES))
    assert table(out) == by_one
    keys = [(row["image"], row["method"]) for row in by_one]
    assert len(keys) == len(set(keys)) == 2 * IMAGES


def test_what_was_finished_is_not_done_again(tmp_path, by_one):
    out, log = tmp_path / "out", tmp_path / "log"
    run(plan(log), out)
    (out / "table.csv").unlink()
    run(plan(log), out)
    assert explained(log) == Counter(range(IMAGES))
    assert table(out) == by_one


def test_each_process_takes_its_own_gpu(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_device("cuda") == "cuda:3"
    assert local_device("cuda:1") == "cuda:1"
    assert local_device("cpu") == "cpu"
