r"""``captum-dcf explain``: image files in, x' of each, a picture and the result out."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image, ImageOps
from toys import Mnist

from captum_dcf import Counterfactual, zoo
from captum_dcf.cli import main
from captum_dcf.data.files import read_images, write_image
from captum_dcf.explain import explain_files
from captum_dcf.models.autoencoder import ConvAutoencoder
from captum_dcf.models.classifier import ResidualClassifier
from captum_dcf.zoo.store import Card, save


@pytest.fixture
def four(tmp_path: Path, mnist: Mnist) -> Path:
    path = tmp_path / "four.png"
    write_image(mnist.images[mnist.labels == 4][0], path)
    return path


def explain(*paths: Path, out: Path, **options: str) -> Result:
    named = [part for name, value in options.items() for part in (f"--{name}", value)]
    return CliRunner().invoke(main, ["explain", *map(str, paths), "--target", "9", "--out", str(out), *named])


def test_an_image_file_becomes_a_nine(tmp_path: Path, four: Path):
    out = tmp_path / "out"
    result = explain(four, out=out)
    assert result.exit_code == 0, result.output
    assert f"{four}: seen as 4" in result.stdout
    assert "FOUND" in result.stdout
    saved = Counterfactual.load(out / "counterfactuals.safetensors")
    assert saved.reached.all()
    with Image.open(out / "four-to-9.png") as picture:
        assert picture.size == (28, 28)
        pixels = torch.from_numpy(np.array(picture)) / 255
    assert (pixels - saved.counterfactuals[0, 0]).abs().max() <= 0.5 / 255 + 1e-6
    with Image.open(out / "counterfactuals.png") as picture:
        assert len(picture.convert("RGB").getcolors(maxcolors=2**20)) > 50
    assert sorted(path.name for path in out.iterdir()) == [
        "counterfactuals.png",
        "counterfactuals.safetensors",
        "four-to-9.png",
    ]


def test_a_colour_photo_of_another_size_is_made_to_fit(tmp_path: Path):
    Image.new("RGB", (40, 60), (200, 30, 30)).save(tmp_path / "red.jpg")
    assert explain(tmp_path / "red.jpg", out=tmp_path / "out").exit_code == 0


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    r"""A folder as ``captum-dcf train`` writes it; of another size of image than the zoo's, from the card alone."""
    shape = {"image_shape": (1, 16, 16)}
    save(ConvAutoencoder(**shape), Card("ae", "conv_autoencoder", shape, "made up"), tmp_path / "trained")
    widths = {"widths": (4, 4)}
    save(ResidualClassifier(**widths), Card("net", "residual_classifier", widths, "made up"), tmp_path / "trained")
    return tmp_path / "trained"


@pytest.mark.parametrize("suffix", ["", ".json", ".safetensors"])
def test_a_folder_of_trained_models(tmp_path: Path, four: Path, trained: Path, suffix: str):
    result = explain(four, out=tmp_path / "out", model=f"{trained}/net", generator=f"{trained}/ae{suffix}")
    assert result.exit_code == 0, result.output
    assert "log p" not in result.stdout  # an autoencoder has no density
    assert Counterfactual.load(tmp_path / "out" / "counterfactuals.safetensors").inputs.shape == (1, 1, 16, 16)


def test_a_model_in_this_folder(tmp_path: Path, four: Path, trained: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(trained)
    assert explain(four, out=tmp_path / "out", model="./net", generator="./ae").exit_code == 0
    assert "no model 'net'" in explain(four, out=tmp_path / "out", model="net").stderr


def test_any_callable_that_is_no_generator_is_a_classifier(tmp_path: Path, four: Path, monkeypatch: pytest.MonkeyPatch):
    weights = torch.randn(784, 10, generator=torch.Generator().manual_seed(0))
    models = {"mnist-glow": zoo.load("mnist-glow"), "mine": lambda x: x.flatten(1) @ weights, "table": {}}
    monkeypatch.setattr(zoo, "load", models.__getitem__)
    monkeypatch.setattr(zoo, "read_card", lambda name: Card(name, "glow", {"image_shape": (1, 28, 28)}, "made up"))
    assert "seen as" in explain_files([four], 9, tmp_path / "out", "mine", "mnist-glow")
    for name in ("mnist-glow", "table"):
        with pytest.raises(ValueError, match=f"'{name}' is no classifier"):
            explain_files([four], 9, tmp_path / "out", name, "mnist-glow")


def test_a_card_without_the_shape_of_its_images(tmp_path: Path, four: Path):
    save(ConvAutoencoder(), Card("ae", "conv_autoencoder", {}, "made up"), tmp_path)
    result = explain(four, out=tmp_path / "out", generator=f"{tmp_path}/ae")
    assert result.exit_code == 2
    assert "ae' does not say image_shape" in result.stderr


def test_files_of_one_name_are_numbered(tmp_path: Path, mnist: Mnist):
    paths = [tmp_path / folder / name for folder, name in (("a", "x.png"), ("b", "x.png"), ("c", "X.png"))]
    for path, image in zip(paths, mnist.images):
        path.parent.mkdir()
        write_image(image, path)
    result = explain(*paths, out=tmp_path / "out")
    assert result.exit_code == 0, result.output
    saved = Counterfactual.load(tmp_path / "out" / "counterfactuals.safetensors")
    for name, expected in zip(("x", "x-2", "X-3"), saved.counterfactuals):
        with Image.open(tmp_path / "out" / f"{name}-to-9.png") as picture:
            pixels = torch.from_numpy(np.array(picture)) / 255
        assert (pixels - expected[0]).abs().max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("name", ["new\nline.png", "四.png", "\udce4.png", "$a_{$.png"])
def test_any_file_name_is_one_line_and_in_the_picture(tmp_path: Path, four: Path, name: str):
    path = tmp_path / name
    try:
        path.write_bytes(four.read_bytes())
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such name")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = explain(path, out=tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 2
    assert (tmp_path / "out" / f"{path.stem}-to-9.png").is_file()
    assert (tmp_path / "out" / "counterfactuals.png").is_file()


def test_on_a_full_disk_nothing_is_left(tmp_path: Path, four: Path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        result = explain(four, out=tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "counterfactuals.safetensors" in result.stderr
    assert not list((tmp_path / "out").iterdir())


def test_an_image_far_from_the_generator_s_own_is_said(tmp_path: Path, four: Path, mnist: Mnist):
    with Image.open(four) as image:
        ImageOps.invert(image).save(tmp_path / "ink.png")
    with torch.no_grad():
        seen = int(mnist.classifier(read_images([tmp_path / "ink.png"], (1, 28, 28))).argmax())
    arguments = str(tmp_path / "ink.png"), str(four), "--out", str(tmp_path / "out"), "--target", str(seen)
    lines = CliRunner().invoke(main, ["explain", *arguments]).stdout.splitlines()
    assert ["far below the generator's own images" in line for line in lines] == [True, False, False]


def test_of_many_images_the_picture_shows_the_first(tmp_path: Path, four: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("captum_dcf.explain.ROWS", 2)
    result = explain(four, four, four, out=tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(Counterfactual.load(tmp_path / "out" / "counterfactuals.safetensors")) == 3
    with Image.open(tmp_path / "out" / "counterfactuals.png") as picture:
        assert picture.height < 1.5 * 150 * 3
