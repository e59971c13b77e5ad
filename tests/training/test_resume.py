r"""Trainings that are killed and go on: the weights are those of a training that was not; what was saved stays."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")

import captum_dcf
from captum_dcf import zoo
from captum_dcf.training.run import train

pytestmark = pytest.mark.filterwarnings("ignore")

# Dropout, shifts and a metric draw noise; 7 steps an epoch, 21 in all. The process is killed in the middle of a step.
PROGRAM = """
import os, signal, sys
import torch
from torch import nn
from torch.utils.data import TensorDataset
from captum_dcf.data import sources
from captum_dcf.models import registry
from captum_dcf.training import recipes
from captum_dcf.training.objectives import Reconstruction
from captum_dcf.training.run import train

def open_noise(root, split, image_shape):
    images = torch.rand(30, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    return TensorDataset(images, torch.arange(30))

def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Dropout(0.3), nn.Linear(5, 36), nn.Unflatten(1, (1, 6, 6)))

class Killed(Reconstruction):
    def on_train_batch_start(self, batch, batch_idx):
        if self.trainer.max_epochs > 1 and self.global_step == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

    def metric(self, images, labels):
        return super().metric(images + torch.rand_like(images), labels)

if __name__ == "__main__":
    sources.register("noise", sources.Source("__main__:open_noise", (1, 6, 6), "classes", None, "noise"))
    registry.register("network", registry.Architecture("__main__:network", "regressor"))
    recipes.register_objective("killed", "__main__:Killed")
    recipes.register("net", recipes.Recipe("network", {}, "noise", "killed", 3, 4, 1e-2, augment=["shift_two_pixels"]))
    train("net", None, sys.argv[1], seed=5, checkpoint_seconds=float(sys.argv[3]))
"""


def run(folder: Path, killed_at: int, checkpoint_seconds: float) -> int:
    program = folder.parent / "program.py"
    program.write_text(PROGRAM)
    path = os.pathsep.join([str(Path(captum_dcf.__file__).parents[1]), *sys.path])
    command = [sys.executable, str(program), str(folder), str(killed_at), str(checkpoint_seconds)]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True).returncode


def test_a_training_that_is_killed_three_times_gives_the_weights_of_one_that_is_not(tmp_path: Path):
    # A checkpoint after each step, or after each epoch only: the killed one goes on in the middle of an epoch.
    assert run(tmp_path / "whole", -1, 1e9) == 0
    for step in (3, 10, 17):
        assert run(tmp_path / "killed", step, 1e-9) == -signal.SIGKILL
        assert zoo.names(tmp_path / "killed") == []
        assert torch.load(tmp_path / "killed" / "net.ckpt", weights_only=True)["global_step"] == step
    assert run(tmp_path / "killed", -1, 1e-9) == 0
    whole, killed = (zoo.read_card("net", tmp_path / part) for part in ("whole", "killed"))
    assert whole.sha256 == killed.sha256
    assert whole.figures == killed.figures
    rows = [rows_of(tmp_path / part / "net.csv") for part in ("whole", "killed")]
    assert [row[:2] + row[3:] for row in rows[0]] == [row[:2] + row[3:] for row in rows[1]]
    assert [row[:2] for row in rows[1][1:]] == [["1.0", "7"], ["2.0", "14"], ["3.0", "21"]]


def rows_of(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()]


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_leaves_the_last_checkpoint_to_go_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved = []

    def save(self: object, path: Path, *_: object) -> None:
        # That of the trial, and of the first of three epochs.
        if len(saved) == 2:
            path.write_bytes(b"PK half of it")
            full()
        saved.append(path)
        original(self, path)

    original = __import__("lightning").Trainer.save_checkpoint
    whole = train("helix-classifier", None, tmp_path / "whole", epochs=3, limit=600)
    with monkeypatch.context() as patch:
        patch.setattr("lightning.Trainer.save_checkpoint", save)
        with pytest.raises(OSError, match="step 2 could not be saved: No space left on device") as caught:
            train("helix-classifier", None, tmp_path / "out", epochs=3, limit=600)
    assert len(str(caught.value).splitlines()) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "helix-classifier.ckpt",
        "helix-classifier.csv",
    ]
    card = train("helix-classifier", None, tmp_path / "out", epochs=3, limit=600)
    assert card.training["epochs_before_last_run"] == 1
    assert card.sha256 == whole.sha256


def test_weights_that_cannot_be_written_can_still_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr("captum_dcf.training.finish.save", full)
        with pytest.raises(OSError, match="No space"):
            train("helix-classifier", None, tmp_path, epochs=1, limit=600)
    card = train("helix-classifier", None, tmp_path, epochs=1, limit=600)
    assert card.training["epochs_before_last_run"] == 1
    assert zoo.names(tmp_path) == ["helix-classifier"]
