r"""Weights and cards on disk: what is saved is loaded, what was altered is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from captum_dcf import Generator, zoo
from captum_dcf.models.classifier import ConvClassifier
from captum_dcf.models.glow import glow
from captum_dcf.zoo.store import Card, build, save

CLASSIFIER = {"image_size": 8, "blocks": [[2, 3]], "hidden": [5], "num_classes": 4}
GLOW = {"image_shape": [1, 8, 8], "steps": [1, 1], "hidden_channels": [4, 4]}


def card(name: str = "tiny", architecture: str = "conv_classifier", arguments: dict | None = None) -> Card:
    arguments = arguments or {"conv_classifier": CLASSIFIER, "glow": GLOW}.get(architecture, {})
    return Card(name, architecture, arguments, "no data, by nobody", {"seed": 0}, {"accuracy": 12.5}, "guessed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(build(card()), card(), tmp_path)
    return tmp_path


def test_a_classifier_comes_back_as_it_was(tmp_path: Path):
    model, x = build(card()).eval(), torch.rand(3, 1, 8, 8)
    written = save(model, card(), tmp_path / "new" / "folder")
    again = zoo.load("tiny", tmp_path / "new" / "folder")
    assert isinstance(again, ConvClassifier)
    assert not again.training
    assert torch.equal(again(x), model(x))
    assert again(x).shape == (3, 4)
    assert zoo.read_card("tiny", tmp_path / "new" / "folder") == written


def test_a_flow_comes_back_as_a_generator(tmp_path: Path):
    flow, x = build(card("flow", "glow")), torch.rand(6, 1, 8, 8)
    with torch.no_grad():
        expected = flow.log_prob(x, None)
    save(flow, card("flow", "glow"), tmp_path)
    generator = zoo.load("flow", tmp_path)
    assert isinstance(generator, Generator)
    assert generator.exact
    assert not generator.training
    torch.testing.assert_close(generator.log_prob(x), expected)
    torch.testing.assert_close(generator(x), x, rtol=0, atol=1e-5)


def test_weights_stored_in_half_precision_are_loaded_in_single(tmp_path: Path):
    save(build(card()).half(), card(), tmp_path)
    model = zoo.load("tiny", tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model(torch.rand(1, 1, 8, 8))


def test_a_card_says_what_it_was_told(folder: Path):
    read = zoo.read_card("tiny", folder)
    assert read.sha256 == hashlib.sha256((folder / "tiny.safetensors").read_bytes()).hexdigest()
    assert (read.architecture, read.arguments, read.figures) == ("conv_classifier", CLASSIFIER, {"accuracy": 12.5})
    as_json = json.loads((folder / "tiny.json").read_text(encoding="utf-8"))
    assert as_json["data"] == "no data, by nobody"


def test_saving_again_replaces_weights_and_card(folder: Path):
    first = zoo.read_card("tiny", folder)
    torch.manual_seed(9)
    model = build(card()).eval()
    second = save(model, card(), folder)
    assert second.sha256 != first.sha256
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(zoo.load("tiny", folder)(x), model(x))


def test_names_are_those_in_the_folder(folder: Path):
    save(build(card("another")), card("another"), folder)
    assert zoo.names(folder) == ["another", "tiny"]
    assert zoo.names(folder / "nowhere") == []
    assert set(zoo.names()) >= {path.stem for path in (Path(zoo.__file__).parent / "weights").glob("*.safetensors")}


def test_an_unknown_name(folder: Path):
    with pytest.raises(FileNotFoundError, match=r"'mnist-clown'.*\['tiny'\]"):
        zoo.load("mnist-clown", folder)
    with pytest.raises(FileNotFoundError, match="'mnist-clown'"):
        zoo.load("mnist-clown")


def test_missing_weights(folder: Path):
    (folder / "tiny.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"'tiny'.*tiny.safetensors"):
        zoo.load("tiny", folder)


@pytest.mark.parametrize("how", ["one bit", "cut off", "other weights", "empty"])
def test_altered_weights(folder: Path, how: str):
    path = folder / "tiny.safetensors"
    data = path.read_bytes()
    if how == "other weights":
        save_file({key: value + 1 for key, value in load_file(path).items()}, path)
    else:
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        path.write_bytes({"one bit": flipped, "cut off": data[:-40], "empty": b""}[how])
    with pytest.raises(ValueError, match=r"tiny.safetensors was altered: its SHA-256 is \w{64}, the card says \w{64}"):
        zoo.load("tiny", folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        '"card"',
        '{"name": "tiny"}',
        '{"name": 1, "architecture": 2, "arguments": {}, "data": "", "x": 1}',
    ],
)
def test_a_broken_card(folder: Path, text: str):
    (folder / "tiny.json").write_text(text)
    for read in (zoo.read_card, zoo.load):
        with pytest.raises(ValueError, match=r"tiny.json is not a model card"):
            read("tiny", folder)


def test_a_card_that_is_no_text(folder: Path):
    (folder / "tiny.json").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match=r"tiny.json is not a model card"):
        zoo.load("tiny", folder)


def altered_card(folder: Path, **changes: object) -> None:
    path = folder / "tiny.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_unknown_architecture(folder: Path):
    altered_card(folder, architecture="os:system")
    with pytest.raises(ValueError, match=r"'tiny'.*'os:system'; known are \[.*'conv_classifier', 'glow'.*\]"):
        zoo.load("tiny", folder)


def test_a_card_of_another_size_than_its_weights(folder: Path):
    altered_card(folder, arguments={**CLASSIFIER, "num_classes": 5})
    with pytest.raises(ValueError, match=r"tiny.safetensors does not fit the architecture"):
        zoo.load("tiny", folder)


@pytest.mark.parametrize("arguments", [{"colour": "red"}, {"image_size": "large"}, [], None])
def test_arguments_that_the_architecture_does_not_have(folder: Path, arguments: object):
    altered_card(folder, arguments=arguments)
    with pytest.raises(ValueError, match=r"'tiny'.*arguments"):
        zoo.load("tiny", folder)


def test_loading_leaves_the_random_state_alone(folder: Path):
    # Untrained weights are drawn before they are replaced.
    torch.manual_seed(3)
    before = torch.get_rng_state()
    zoo.load("tiny", folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_architectures_are_built_with_their_defaults():
    assert isinstance(build(card(arguments={"num_classes": 3})), nn.Module)
    assert sum(p.numel() for p in build(card(arguments={"num_classes": 10})).parameters()) == _by_hand()
    assert type(build(card("flow", "glow"))) is type(glow(**GLOW))


def _by_hand() -> int:
    # The paper's network for MNIST: 28 → 26 → 24 → 12 → 10 → 8 → 4 pixels, and 512, 256, 10 units.
    convolutions = [(1, 16), (16, 32), (32, 64), (64, 64)]
    linear = [(64 * 16, 512), (512, 256), (256, 10)]
    return sum(9 * a * b + b for a, b in convolutions) + sum(a * b + b for a, b in linear)
