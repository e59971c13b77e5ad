r"""Training on a few made-up digits: weights and card appear, load, and a checkpoint is gone on from."""

from __future__ import annotations

import logging
import os
import pickle
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from idx import write_mnist
from torch import Tensor

from captum_dcf import zoo

pytest.importorskip("lightning")
pytest.importorskip("torchvision")

from captum_dcf.training import objectives
from captum_dcf.training.recipes import RECIPES
from captum_dcf.training.run import train

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_mnist(tmp_path / "data", train=130, test=30)
    return tmp_path / "data"


def test_weights_and_card_appear_and_load(root: Path, tmp_path: Path):
    out = tmp_path / "out"
    card = train("mnist-cnn", root, out, epochs=1, seed=4)
    assert zoo.names(out) == ["mnist-cnn"]
    assert zoo.read_card("mnist-cnn", out) == card
    assert card.training["seed"] == 4
    assert card.training["epochs"] == 1
    assert "Cortes" in card.data
    model = zoo.load("mnist-cnn", out)
    images, labels = _test_set(root)
    with torch.no_grad():
        accuracy = 100 * (model(images).argmax(1) == labels).float().mean().item()
    # The figure is measured on the weights that are written, with dropout switched off.
    assert card.figures["accuracy"] == pytest.approx(accuracy, abs=0.01)
    assert "30 test images" in card.measured
    assert (out / "mnist-cnn.ckpt").is_file()


def test_training_goes_on_from_its_checkpoint(root: Path, tmp_path: Path):
    out = tmp_path / "out"
    train("mnist-cnn", root, out, epochs=1)
    first = _checkpoint(out)
    assert (first["epoch"], first["global_step"]) == (0, 1)
    before = {key: value.clone() for key, value in zoo.load("mnist-cnn", out).state_dict().items()}
    card = train("mnist-cnn", root, out, epochs=3)
    second = _checkpoint(out)
    # Two epochs of one step more, not three.
    assert (second["epoch"], second["global_step"]) == (2, 3)
    assert card.training["epochs"] == 3
    assert card.training["epochs_before_last_run"] == 1
    after = zoo.load("mnist-cnn", out).state_dict()
    assert any(not torch.equal(before[key], value) for key, value in after.items())


def test_a_finished_checkpoint_is_not_given_another_card(root: Path, tmp_path: Path):
    out = tmp_path / "out"
    card = train("mnist-cnn", root, out, epochs=2)
    for epochs in (1, 2):
        with pytest.raises(ValueError, match=r"mnist-cnn.ckpt has 2 epochs already: ask for more than these"):
            train("mnist-cnn", root, out, epochs=epochs)
    with pytest.raises(ValueError, match="began with seed 0, not 5"):
        train("mnist-cnn", root, out, epochs=3, seed=5)
    assert zoo.read_card("mnist-cnn", out) == card


def test_a_flow_takes_its_scales_from_the_training_set(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []
    measured = objectives.bits_per_dimension

    def spy(flow: torch.nn.Module, images: Tensor) -> Tensor:
        seen.append(len(images))
        return measured(flow, images)

    monkeypatch.setattr(objectives, "bits_per_dimension", spy)
    small = {"image_shape": [1, 28, 28], "steps": [1, 1], "hidden_channels": [4, 4]}
    monkeypatch.setitem(RECIPES, "mnist-glow", replace(RECIPES["mnist-glow"], arguments=small))
    train("mnist-glow", root, tmp_path / "out", epochs=1)
    # A batch of 64 of the 130 training images, not the 30 test images.
    assert seen[0] == 64
    assert seen[-1] == 30


def test_training_twice_gives_the_same_weights(root: Path, tmp_path: Path):
    cards = [train("mnist-cnn", root, tmp_path / name, epochs=1, seed=1) for name in ("one", "two")]
    assert cards[0].sha256 == cards[1].sha256


def test_an_unknown_recipe(root: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"'mnist-clown'.*mnist-cnn"):
        train("mnist-clown", root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_root_without_data(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train("mnist-cnn", tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.parametrize("there", [["json", "safetensors"], ["json"], ["safetensors"]])
def test_weights_of_another_training_are_not_replaced(root: Path, tmp_path: Path, there: list[str]):
    for suffix in there:
        (tmp_path / f"mnist-ae.{suffix}").write_text("of the user")
    before = contents_of_files(tmp_path)
    with pytest.raises(FileExistsError, match=rf"mnist-ae\.{there[-1]}"):
        train("mnist-ae", root, tmp_path, epochs=1)
    assert contents_of_files(tmp_path) == before


def contents_of_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_card_says_how_many_images_were_used(root: Path, tmp_path: Path):
    card = train("mnist-ae", root, tmp_path / "out", epochs=1, limit=20)
    assert card.data.startswith("20 training images of MNIST")
    assert card.training["images"] == 20
    assert card.training["command"] == "captum-dcf train mnist-ae --seed 0 --epochs 1 --limit 20"
    assert "20 test images" in card.measured
    for limit in (None, 30):
        with pytest.raises(ValueError, match=f"began with limit 20, not {limit}"):
            train("mnist-ae", root, tmp_path / "out", epochs=2, limit=limit)
    whole = train("mnist-ae", root, tmp_path / "whole", epochs=1)
    assert whole.data.startswith("130 training images")
    assert "--limit" not in whole.training["command"]


def test_a_limit_of_nothing_is_refused(root: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="there are 130, and limit is 0"):
        train("mnist-ae", root, tmp_path / "out", epochs=1, limit=0)


def test_a_card_says_how_it_was_trained(root: Path, tmp_path: Path):
    training = train("mnist-cnn", root, tmp_path / "out", epochs=1).training
    expected = {"objective": "classification", "source": "mnist", "augment": ["shift_two_pixels"], "clip": 1.0}
    assert expected.items() <= training.items()
    assert (training["batch_size"], training["weight_decay"]) == (128, 1e-4)


class Opened:
    r"""Leaves a file behind where it is unpickled by a loader that runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_executed(root: Path, tmp_path: Path):
    marker = tmp_path / "executed"
    (tmp_path / "out").mkdir()
    torch.save({"epoch": Opened(marker)}, tmp_path / "out" / "mnist-ae.ckpt")
    with pytest.raises(ValueError, match=r"mnist-ae\.ckpt cannot be read as a checkpoint"):
        train("mnist-ae", root, tmp_path / "out", epochs=1)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 and no more", pickle.dumps({"epoch": 1})])
def test_a_file_that_is_no_checkpoint_is_named(root: Path, tmp_path: Path, content: bytes):
    (tmp_path / "mnist-ae.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=r"mnist-ae\.ckpt (cannot be read as|is no) .*checkpoint") as caught:
        train("mnist-ae", root, tmp_path, epochs=1)
    assert len(str(caught.value).splitlines()) == 1


def test_a_checkpoint_that_cannot_be_opened_is_not_called_damaged(root: Path, tmp_path: Path):
    (tmp_path / "mnist-ae.ckpt").mkdir()
    with pytest.raises(OSError, match=r"mnist-ae\.ckpt"):
        train("mnist-ae", root, tmp_path, epochs=1)


@pytest.mark.parametrize("content", [[], {"epoch": 1}, torch.zeros(3)])
def test_a_file_of_something_else_is_no_checkpoint(root: Path, tmp_path: Path, content: object):
    torch.save(content, tmp_path / "mnist-ae.ckpt")
    with pytest.raises(ValueError, match=r"mnist-ae\.ckpt is no checkpoint .*state_dict"):
        train("mnist-ae", root, tmp_path, epochs=1)


@pytest.mark.parametrize("settings", ["its own", "none"])
def test_the_checkpoint_of_another_model_is_named(root: Path, tmp_path: Path, settings: str):
    train("mnist-oracle", root, tmp_path, epochs=1)
    found = torch.load(tmp_path / "mnist-oracle.ckpt", weights_only=True)
    if settings == "none":
        found["hyper_parameters"] = {}
    torch.save(found, tmp_path / "mnist-ae.ckpt")
    says = "holds the weights of another model" if settings == "none" else "began with architecture 'residual_class"
    with pytest.raises(ValueError, match=says) as caught:
        train("mnist-ae", root, tmp_path, epochs=2)
    assert len(str(caught.value).splitlines()) == 1


def test_a_training_that_ended_before_its_weights_were_written_writes_them(root: Path, tmp_path: Path):
    card = train("mnist-ae", root, tmp_path, epochs=2)
    for suffix in ("json", "safetensors"):
        (tmp_path / f"mnist-ae.{suffix}").unlink()
    again = train("mnist-ae", root, tmp_path, epochs=2)
    assert again.sha256 == card.sha256
    assert again.figures == card.figures
    assert again.training["epochs_before_last_run"] == 2


def test_a_folder_that_cannot_be_written_is_refused_before_the_training(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("captum_dcf.training.run.measure_speed", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        train("mnist-ae", root, tmp_path / "file" / "out", epochs=1)

    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(OSError, match="No space"):
        train("mnist-ae", root, tmp_path / "out", epochs=1)


def test_the_random_state_of_the_caller_stays(root: Path, tmp_path: Path):
    states = [torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()]
    environment = dict(os.environ)
    train("mnist-ae", root, tmp_path, epochs=1)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    assert dict(os.environ) == environment


def test_another_seed_gives_other_weights(root: Path, tmp_path: Path):
    one, two = (train("mnist-ae", root, tmp_path / str(seed), epochs=1, seed=seed) for seed in (1, 2))
    assert one.sha256 != two.sha256


def _test_set(root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    from captum_dcf.data import mnist

    return mnist(root, train=False)


def _checkpoint(out: Path) -> dict:
    return torch.load(out / "mnist-cnn.ckpt", weights_only=False, map_location="cpu")


def test_a_log_gets_neither_a_bar_nor_an_advertisement(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = logger.level
    train("helix-classifier", None, tmp_path, epochs=1, limit=600)
    written = capfd.readouterr()
    assert "it/s" not in written.err + written.out
    assert "Tip" not in written.err + written.out
    assert logger.level == level
