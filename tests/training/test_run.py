r"""Training on a few made-up digits: weights and card appear, load, and a checkpoint is gone on from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from idx import write_mnist
from torch import Tensor

from captum_dcf import zoo

pytest.importorskip("lightning")
pytest.importorskip("torchvision")

from captum_dcf.training import objectives
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


def _test_set(root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    from captum_dcf.data import mnist

    return mnist(root, train=False)


def _checkpoint(out: Path) -> dict:
    return torch.load(out / "mnist-cnn.ckpt", weights_only=False, map_location="cpu")
