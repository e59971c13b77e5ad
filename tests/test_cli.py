from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from captum_dcf import Counterfactual
from captum_dcf.cli import main
from captum_dcf.data import mnist_sample
from captum_dcf.data.files import write_image


@pytest.fixture
def four(tmp_path):
    images, labels = mnist_sample()
    path = tmp_path / "four.png"
    write_image(images[labels == 4][0], path)
    return path


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_demo_writes_its_table_and_a_picture(tmp_path):
    result = run("demo", "--per-class", 2, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert table.strip() in result.stdout
    assert table.count("\n| in ") == 3
    with Image.open(tmp_path / "counterfactuals.png") as picture:
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(maxcolors=2**20)) > 100


def test_explain_turns_an_image_file_into_a_nine(tmp_path, four):
    out = tmp_path / "out"
    result = run("explain", four, "--target", 9, "--out", out)
    assert result.exit_code == 0, result.output
    assert "FOUND" in result.stdout
    saved = Counterfactual.load(out / "counterfactuals.safetensors")
    assert saved.reached.all()
    with Image.open(out / "four-to-9.png") as picture:
        assert picture.size == (28, 28)
        pixels = torch.tensor(list(picture.getdata())).view(28, 28) / 255
    assert (pixels - saved.counterfactuals[0, 0]).abs().max() <= 0.5 / 255 + 1e-6
    assert (out / "counterfactuals.png").stat().st_size > 0


def test_a_colour_photo_of_another_size_is_made_to_fit(tmp_path):
    Image.new("RGB", (40, 60), (200, 30, 30)).save(tmp_path / "red.jpg")
    assert run("explain", tmp_path / "red.jpg", "--target", 1, "--out", tmp_path / "out").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explain", "{corrupt}", "--target", "9", "--out", "{out}"], "cannot be read as an image"),
        (["explain", "{missing}", "--target", "9", "--out", "{out}"], "no image file"),
        (["explain", "{four}", "--target", "12", "--out", "{out}"], "out of range"),
        (["explain", "{four}", "--target", "9", "--out", "{out}", "--model", "resnet"], "mnist-cnn"),
        (["explain", "{four}", "--target", "nine", "--out", "{out}"], "integer"),
        (
            ["explain", "{four}", "--target", "9", "--out", "{out}", "--generator", "mnist-cnn"],
            "'mnist-cnn' is no generator",
        ),
        (["explain", "{four}", "{four}", "--target", "9", "--out", "{out}"], "another file name"),
        (["reproduce", "mnist", "--out", "{out}", "--source", "9"], "two classes"),
        (["explain", "{four}", "--out", "{out}"], "--target"),
        (["demo", "--out", "{four}"], "four.png"),
        (["train", "mnist-cnn", "--root", "{out}", "--out", "{out}"], "no MNIST"),
        (["train", "unknown", "--root", "{out}", "--out", "{out}"], "mnist-glow"),
        (["paint"], "paint"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_status_2(tmp_path, four, arguments, says):
    corrupt = tmp_path / "corrupt.png"
    corrupt.write_bytes(four.read_bytes()[:60])
    places = {"corrupt": corrupt, "missing": tmp_path / "missing.png", "four": four, "out": tmp_path / "out"}
    result = run(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
