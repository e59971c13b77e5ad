r"""Models and generators by where they are found: a user's own code, folders that training wrote, the zoo."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

from captum_dcf import Generator
from captum_dcf.loading import card_of, load_generator, load_model
from captum_dcf.models.autoencoder import ConvAutoencoder
from captum_dcf.models.classifier import ResidualClassifier
from captum_dcf.zoo.store import Card, save

CODE = """
from __future__ import annotations

import sys
from dataclasses import dataclass

import normflows as nf
from torch import nn

from beside import scale


@dataclass
class Settings:
    size: int = 4


def net():
    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(Settings().size, 2))


ready = nn.Flatten()


class Net(nn.Sequential):
    pass


def function():
    return lambda x: scale * x.flatten(1)


def late():
    from beside import later
    return lambda x: later * x.flatten(1)


def flow():
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(4), [nf.flows.AffineConstFlow(4)])


class Space:
    inner = staticmethod(lambda: ready)


def needs(size):
    return net()


def fails():
    values = []
    return values[3]


def fails_elsewhere():
    return nn.Linear(-3, "a")


def quits():
    sys.exit(3)


def number():
    return 3


three = 3
"""


def line_of(text: str) -> int:
    r"""The number of the line of CODE that holds a text."""
    [number] = [number for number, line in enumerate(CODE.splitlines(), 1) if text in line]
    return number


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("scale = 2\nlater = 3\n", encoding="utf-8")
    (tmp_path / "my.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "typo.py").write_text("x = 1\ndef net(:\n    pass\n", encoding="utf-8")
    (tmp_path / "breaks.py").write_text("x = 1\n\ny = x / 0\n", encoding="utf-8")
    (tmp_path / "lacks.py").write_text("import no_such_module_anywhere\n", encoding="utf-8")
    return tmp_path


@pytest.fixture(autouse=True)
def _no_leftovers():
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        if name in ("beside", "my", "typo", "breaks", "lacks"):
            del sys.modules[name]


def test_a_file_of_one_s_own(folder: Path):
    x = torch.ones(3, 1, 2, 2)
    model = load_model(f"{folder}/my.py:net")
    assert isinstance(model, nn.Module)
    assert not any(part.training for part in model.modules())
    assert model(x).shape == (3, 2)
    assert load_model(f"{folder}/my.py:ready")(x).shape == (3, 4)
    assert isinstance(load_model(f"{folder}/my.py:Net"), nn.Sequential)
    assert isinstance(load_model(f"{folder}/my.py:Space.inner"), nn.Flatten)
    assert (load_model(f"{folder}/my.py:function")(x) == 2).all()
    assert (load_model(f"{folder}/my.py:late")(x) == 3).all()


def test_a_module_of_this_folder(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    package = folder / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text("from torch import nn\ndef net():\n    return nn.Flatten()\n", encoding="utf-8")
    assert isinstance(load_model("package.nets:net"), nn.Flatten)
    assert isinstance(load_model("my.py:net"), nn.Module)
    assert isinstance(load_model("torch.nn:Flatten"), nn.Flatten)
    for name in ("package", "package.nets"):
        del sys.modules[name]


@pytest.mark.parametrize("place", ["my.py:net", "my.py:fails", "typo.py:net", "my:late", "gone:net"])
def test_the_path_is_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch, place: str):
    monkeypatch.chdir(folder)
    before = sys.path[:]
    with suppress(ImportError, ValueError):
        load_model(place)
    assert sys.path == before


def test_a_file_named_like_a_package_hides_nothing(folder: Path):
    (folder / "torch.py").write_text("from torch import nn\ndef net():\n    return nn.Flatten()\n", encoding="utf-8")
    module = sys.modules["torch"]
    assert isinstance(load_model(f"{folder}/torch.py:net"), nn.Flatten)
    assert sys.modules["torch"] is module


@pytest.mark.parametrize(
    ("place", "error", "says"),
    [
        (
            "my.py:fails",
            ValueError,
            rf"my\.py, line {line_of('return values[3]')}: IndexError: list index out of range",
        ),
        ("my.py:fails_elsewhere", ValueError, rf"my\.py, line {line_of('nn.Linear(-3')}: TypeError"),
        ("my.py:quits", ValueError, rf"my\.py, line {line_of('sys.exit(3)')}: SystemExit: 3"),
        ("typo.py:net", ValueError, r"typo\.py, line 2: SyntaxError"),
        ("breaks.py:net", ValueError, r"breaks\.py, line 3: ZeroDivisionError"),
        ("lacks.py:net", ValueError, r"lacks\.py, line 1: ModuleNotFoundError: .*no_such_module_anywhere"),
        ("lacks:net", ValueError, r"lacks\.py, line 1: ModuleNotFoundError: .*no_such_module_anywhere"),
        ("gone.py:net", FileNotFoundError, r"gone\.py"),
        ("gone.nets:net", ImportError, r"no module 'gone\.nets'"),
        ("my.py:nett", ImportError, r"no 'nett'; it has .*net"),
        ("my.py:needs", ValueError, r"arguments \(size\)"),
        ("my.py:number", ValueError, r"received int"),
        ("my.py:three", ValueError, r"received int"),
        ("", ValueError, r"received ''"),
    ],
)
def test_what_fails_is_one_line_with_file_and_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: type[Exception], says: str
):
    monkeypatch.chdir(folder)
    with pytest.raises(error, match=says) as raised:
        load_model(place)
    assert "\n" not in str(raised.value)


def test_a_generator_of_one_s_own(folder: Path):
    generator = load_generator(f"{folder}/my.py:flow")
    assert isinstance(generator, Generator)
    assert generator.exact
    with pytest.raises(ValueError, match="received Sequential"):
        load_generator(f"{folder}/my.py:net")
    with pytest.raises(ValueError, match="received function"):
        load_generator(f"{folder}/my.py:function")


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    out = tmp_path / "trained"
    shape, widths = {"image_shape": (1, 16, 16)}, {"widths": (4, 4)}
    save(ConvAutoencoder(**shape), Card("ae", "conv_autoencoder", shape, "made up"), out)
    save(ResidualClassifier(**widths), Card("net", "residual_classifier", widths, "made up"), out)
    (out / "other.json").write_text("{}", encoding="utf-8")
    return out


@pytest.mark.parametrize("name", ["{0}/net", "{0}/net.json", "{0}/net.safetensors", "{0}/", "{0}"])
def test_what_training_wrote(trained: Path, name: str):
    model = load_model(name.format(trained))
    assert isinstance(model, ResidualClassifier)
    assert not model.training
    card = card_of(name.format(trained))
    assert card is not None
    assert card.name == "net"


def test_a_folder_holds_one_of_each_role(trained: Path, monkeypatch: pytest.MonkeyPatch):
    assert isinstance(load_generator(f"{trained}/"), Generator)
    card = card_of(f"{trained}/", generator=True)
    assert card is not None
    assert card.name == "ae"
    monkeypatch.chdir(trained)
    assert isinstance(load_model("./net"), ResidualClassifier)
    widths = {"widths": (4, 4)}
    save(ResidualClassifier(**widths), Card("second", "residual_classifier", widths, "made up"), trained)
    with pytest.raises(ValueError, match=r"\['net', 'second'\]"):
        load_model(f"{trained}/")
    (trained / "ae.json").unlink()
    with pytest.raises(ValueError, match=r"no generator, but net \(a classifier\)"):
        load_generator(f"{trained}/")


def test_the_zoo():
    assert isinstance(load_model("mnist-cnn"), nn.Module)
    with pytest.raises(ValueError, match="is a generator, and no classifier"):
        load_model("mnist-glow")
    with pytest.raises(ValueError, match="'mnist-cnn' is no generator"):
        load_generator("mnist-cnn")
    with pytest.raises(FileNotFoundError, match=r"'resnet'.*mnist-cnn.*my\.py"):
        load_model("resnet")
    with pytest.raises(FileNotFoundError, match="no model 'net'"):
        load_model("nowhere/net")


def test_code_has_no_card():
    assert card_of("anything.py:net") is None
