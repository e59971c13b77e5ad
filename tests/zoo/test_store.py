r"""Weights and cards on disk: what is saved is loaded, what was altered is refused."""

from __future__ import annotations

import hashlib
import json
import sys
import types
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from captum_dcf import Generator, zoo
from captum_dcf.generators import measure_support
from captum_dcf.models import registry
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


def test_a_model_is_stored_in_half_of_the_space_where_asked(tmp_path: Path):
    model, x = build(card()).eval(), torch.rand(3, 1, 8, 8)
    save(model, card(), tmp_path / "single")
    save(model, card(), tmp_path / "half", half=True)
    single, half = ((tmp_path / part / "tiny.safetensors").stat().st_size for part in ("single", "half"))
    # The rest is the names of the tensors.
    assert single - half == 2 * sum(parameter.numel() for parameter in model.parameters())
    again = zoo.load("tiny", tmp_path / "half")
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    torch.testing.assert_close(again(x), model(x), rtol=1e-2, atol=1e-2)
    with torch.no_grad():
        model.head[-1].bias[0] = 1e5
    with pytest.raises(ValueError, match=r"bias has values up to 1e\+05.* 65504"):
        save(model, card(), tmp_path / "half", overwrite=True, half=True)
    assert zoo.load("tiny", tmp_path / "half") is not None


def test_a_generator_has_the_support_of_its_card(tmp_path: Path):
    images = torch.rand(20, 1, 8, 8)
    flow = build(card("flow", "glow"))
    with torch.no_grad():
        flow.log_prob(images, None)
    save(flow, card("flow", "glow"), tmp_path / "without")
    generator = zoo.load("flow", tmp_path / "without")
    assert generator.support is None
    support = measure_support(generator, images)
    save(flow, replace(card("flow", "glow"), support=support.as_dict()), tmp_path)
    read = zoo.load("flow", tmp_path).support
    assert read.of == support.of == "log_prob"
    assert read.quantiles == pytest.approx(support.quantiles, abs=1e-3)
    for wrong in ({"of": "log_prob"}, {"of": "beauty", "quantiles": [0.0, 1.0]}):
        save(flow, replace(card("flow", "glow"), support=wrong), tmp_path, overwrite=True)
        with pytest.raises(ValueError, match=wrong["of"] if len(wrong) > 1 else "quantiles"):
            zoo.load("flow", tmp_path)


def test_a_card_says_what_it_was_told(folder: Path):
    read = zoo.read_card("tiny", folder)
    assert read.sha256 == hashlib.sha256((folder / "tiny.safetensors").read_bytes()).hexdigest()
    assert (read.architecture, read.arguments, read.figures) == ("conv_classifier", CLASSIFIER, {"accuracy": 12.5})
    as_json = json.loads((folder / "tiny.json").read_text(encoding="utf-8"))
    assert as_json["data"] == "no data, by nobody"


def test_a_model_that_is_there_is_replaced_where_asked_only(folder: Path):
    first, before = zoo.read_card("tiny", folder), contents(folder)
    torch.manual_seed(9)
    model = build(card()).eval()
    with pytest.raises(FileExistsError, match=r"tiny\.safetensors is there already"):
        save(model, card(), folder)
    assert contents(folder) == before
    second = save(model, card(), folder, overwrite=True)
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
    with pytest.raises(ValueError, match=r"'tiny'.*'os:system'; known are \[.*'conv_classifier'.*'glow'.*\]"):
        zoo.load("tiny", folder)


def test_a_card_of_another_size_than_its_weights(folder: Path):
    altered_card(folder, arguments={**CLASSIFIER, "num_classes": 5})
    with pytest.raises(ValueError, match=r"tiny.safetensors does not fit the architecture"):
        zoo.load("tiny", folder)


@pytest.mark.parametrize(
    "arguments",
    [
        {"colour": "red"},
        {"image_size": "large"},
        {"blocks": [[]]},
        {"num_classes": -1},
        {"image_size": 1},
        {"blocks": 3},
    ],
)
def test_arguments_that_the_architecture_does_not_have(folder: Path, arguments: object):
    altered_card(folder, arguments=arguments)
    with pytest.raises(ValueError, match=r"'tiny'.*arguments"):
        zoo.load("tiny", folder)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("arguments", None),
        ("arguments", []),
        ("architecture", ["glow"]),
        ("architecture", {}),
        ("training", []),
        ("figures", "x"),
        ("figures", {"accuracy": "high"}),
        ("figures", {"accuracy": True}),
        ("measured", 3),
        ("sha256", None),
        ("support", []),
        ("classes", {"cat": 0}),
        ("classes", ["cat", 1]),
    ],
)
def test_a_card_with_a_field_of_another_type(folder: Path, part: str, value: object):
    altered_card(folder, **{part: value})
    for read in (zoo.read_card, zoo.load):
        with pytest.raises(ValueError, match=rf"tiny\.json is not a model card: {part} must be"):
            read("tiny", folder)


def test_a_card_of_deep_json(folder: Path):
    (folder / "tiny.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ValueError, match=r"tiny\.json is not a model card"):
        zoo.load("tiny", folder)


def test_a_card_under_another_name(folder: Path):
    for suffix in (".json", ".safetensors"):
        (folder / f"tiny{suffix}").rename(folder / f"other{suffix}")
    with pytest.raises(ValueError, match=r"other\.json is the card of 'tiny', not of 'other'"):
        zoo.load("other", folder)


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "../evil", "a/b", "a\\b", "/tmp/evil", "a\nb", "a\0b", "c:evil"]
)
def test_a_path_is_no_name(folder: Path, name: str):
    with pytest.raises(ValueError, match="no path, received"):
        card(name)
    for read in (zoo.read_card, zoo.load):
        with pytest.raises(ValueError, match="no path, received"):
            read(name, folder)


def test_names_of_many_kinds(tmp_path: Path):
    for name in ("a", "7", "_x", "tiny-2.1+b", "größe"):
        save(build(card(name)), card(name), tmp_path)
        zoo.load(name, tmp_path)
    with pytest.raises(TypeError, match="received 3"):
        card(3)


def test_a_card_without_a_checksum_loads_nothing(folder: Path):
    altered_card(folder, sha256="")
    with pytest.raises(ValueError, match=r"the card says $"):
        zoo.load("tiny", folder)


def test_weights_that_are_no_safetensors(folder: Path):
    (folder / "tiny.safetensors").write_bytes(b"no weights")
    altered_card(folder, sha256=hashlib.sha256(b"no weights").hexdigest())
    with pytest.raises(ValueError, match=r"tiny\.safetensors is no safetensors file"):
        zoo.load("tiny", folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("training", [{"seed": torch.tensor(1)}, {"seed": object()}])
def test_a_card_that_cannot_be_written_leaves_the_model_that_is_there(folder: Path, training: dict):
    before = contents(folder)
    bad = replace(card(), training=training)
    with pytest.raises(TypeError, match="'tiny' cannot be written as JSON"):
        save(build(card()), bad, folder, overwrite=True)
    assert contents(folder) == before
    zoo.load("tiny", folder)


@pytest.mark.parametrize("fails_at", [0, 1])
def test_a_disk_that_is_full_leaves_the_model_that_is_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
):
    before, calls = contents(folder), iter([0, 1])

    def fsync(_: int) -> None:
        if next(calls) == fails_at:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(OSError, match="No space"):
        save(build(card()), card(), folder, overwrite=True)
    assert contents(folder) == before


def test_a_card_alone_is_not_replaced(folder: Path):
    (folder / "tiny.safetensors").unlink()
    with pytest.raises(FileExistsError, match=r"/tiny\.json is there already"):
        save(build(card()), card(), folder)


def test_what_is_written_can_be_read_by_others(folder: Path):
    (folder / "plain").write_bytes(b"")
    for name in ("tiny.json", "tiny.safetensors"):
        assert (folder / name).stat().st_mode == (folder / "plain").stat().st_mode


def test_the_card_that_is_returned_is_the_one_that_was_written(tmp_path: Path):
    written = save(build(card()), card(arguments={**CLASSIFIER, "hidden": (5,)}), tmp_path)
    assert written == zoo.read_card("tiny", tmp_path)


def test_loading_is_to_the_cpu_whatever_the_device_of_the_block(folder: Path):
    with torch.device("meta"):
        model = zoo.load("tiny", folder)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


class Tied(nn.Module):
    r"""A decoder that is the transpose of its encoder, and says the shared weights twice."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, width, bias=False), nn.Linear(width, width, bias=False)
        self.third = nn.Linear(width, width, bias=False)
        self.third.weight = self.second.weight
        self.register_buffer("counted", torch.tensor(2**24 + 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(self.second(self.first(x)))


class OfTied(Generator):
    def __init__(self, model: Tied) -> None:
        super().__init__()
        self.model = model

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z


@pytest.fixture
def of_ones_own(monkeypatch: pytest.MonkeyPatch) -> str:
    # pytest does not import test modules by name, so this one is put where imports look.
    module = types.ModuleType("of_ones_own")
    module.Tied, module.OfTied = Tied, OfTied
    monkeypatch.setitem(sys.modules, "of_ones_own", module)
    monkeypatch.setattr(registry, "ARCHITECTURES", dict(registry.ARCHITECTURES))
    return "of_ones_own"


def test_an_architecture_of_one_s_own_is_saved_and_loaded(tmp_path: Path, of_ones_own: str):
    described = Card("mine", "tied", {"width": 3}, "no data")
    with pytest.raises(ValueError, match="'tied'"):
        build(described)
    registry.register("tied", registry.Architecture("of_ones_own:Tied", "generator", "of_ones_own:OfTied"))
    model, x = build(described).eval(), torch.rand(2, 4)
    save(model, described, tmp_path)
    generator = zoo.load("mine", tmp_path)
    assert isinstance(generator, OfTied)
    assert torch.equal(generator.encode(x), model(x))
    assert generator.model.counted == 2**24 + 1


def test_an_architecture_is_registered_once(of_ones_own: str):
    mine = registry.Architecture("of_ones_own:Tied", "classifier")
    registry.register("mine", mine)
    registry.register("mine", registry.Architecture("of_ones_own:Tied", "classifier"))
    with pytest.raises(ValueError, match="'glow'"):
        registry.register("glow", mine)
    assert registry.architecture("glow").role == "generator"


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        (("Tied", "classifier"), "'Tied'"),
        (("a:b", "painter"), "'painter'"),
        (("a:b", "generator", "OfTied"), "'OfTied'"),
    ],
)
def test_an_architecture_that_is_none(arguments: tuple[str, ...], received: str):
    with pytest.raises(ValueError, match=f"received {received}"):
        registry.Architecture(*arguments)


@pytest.mark.parametrize("name", registry.ARCHITECTURES)
def test_what_builds_an_architecture_is_there(name: str):
    known = registry.architecture(name)
    assert callable(resolve_name(known.build))
    assert known.generator is None or callable(resolve_name(known.generator))


def test_an_architecture_that_needs_a_missing_package(monkeypatch: pytest.MonkeyPatch, of_ones_own: str):
    def needs(**_: object) -> nn.Module:
        raise ImportError("pip install it")

    sys.modules["of_ones_own"].needs = needs
    registry.register("needs", registry.Architecture("of_ones_own:needs", "classifier"))
    with pytest.raises(ImportError, match="pip install it"):
        build(Card("mine", "needs", {}, ""))


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
