r"""``captum-dcf explain``: image files in; x' of each, a picture, a table, a report and the result out."""

from __future__ import annotations

import csv
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from toys import Mnist, RowClassifier

from captum_dcf import AtLeast, Counterfactual, LeaveClass
from captum_dcf.cli import main
from captum_dcf.data.files import write_image
from captum_dcf.explain import explain_files
from captum_dcf.models.autoencoder import ConvAutoencoder
from captum_dcf.models.classifier import ResidualClassifier
from captum_dcf.zoo.store import Card, save

# Models and generators as a user would have them, of images of 4×4; see toys.py.
CODE = """
import torch
from torch import nn
from toys import Rotated, RowClassifier

from captum_dcf.generators import Support


class Large(nn.Module):
    r"Takes coloured, standardised images of 32×32 only."

    def __init__(self):
        super().__init__()
        self.rows = RowClassifier()

    def forward(self, x):
        assert x.shape[1:] == (3, 32, 32), f"wrong size {tuple(x.shape)}"
        return self.rows(nn.functional.avg_pool2d(x.mean(1, keepdim=True) * 0.25 + 0.5, 8))


def net():
    return RowClassifier()


def large():
    return Large()


def shares():
    rows = RowClassifier()
    return lambda x: rows(x).softmax(1)


def one_logit():
    rows = RowClassifier()
    return lambda x: rows(x)[:, 1:2] - rows(x)[:, :1]


norm = nn.BatchNorm2d(1)


def training():
    rows = RowClassifier()
    return lambda x: rows(norm(x))


def any_size():
    rows = RowClassifier()
    return lambda x: rows(nn.functional.adaptive_avg_pool2d(x, 4))


def values():
    return lambda x: 10 * x.flatten(1).mean(1)


def two_values():
    return lambda x: torch.stack((x.flatten(1).mean(1), 10 * x.flatten(1).mean(1)), 1)


def grey():
    return nn.Sequential(nn.Conv2d(1, 2, 4), nn.Flatten())


def rotated():
    generator = Rotated()
    generator.image_shape = (1, 4, 4)
    return generator


class Signed(Rotated):
    data_range = (-1.0, 1.0)
    image_shape = (1, 4, 4)


def silent():
    return Rotated()


class Coloured(Rotated):
    image_shape = (3, 4, 4)


def supported():
    r"Its training images had latents of lengths from 0.2 to 1."
    generator = rotated()
    generator.support = Support("latent_length", (-1.0, -0.2))
    return generator
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "my.py"
    path.write_text(CODE, encoding="utf-8")
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return written(tmp_path / "small.png", 4, 4)


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    return written(tmp_path / "wide.png", 24, 40)


@pytest.fixture
def four(tmp_path: Path, mnist: Mnist) -> Path:
    path = tmp_path / "four.png"
    write_image(mnist.images[mnist.labels == 4][0], path)
    return path


def written(path: Path, height: int, width: int, channels: int = 1) -> Path:
    r"""An image file with values from 0.3 to 0.6."""
    write_image(0.3 + 0.3 * torch.rand(channels, height, width, generator=torch.Generator().manual_seed(0)), path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["explain", *map(str, arguments)])


def own(code: Path, model: str = "net", generator: str = "rotated") -> list[str]:
    return ["--model", f"{code}:{model}", "--generator", f"{code}:{generator}"]


def pixels(path: Path) -> torch.Tensor:
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture)) / 255


def table(out: Path) -> list[dict[str, str]]:
    with (out / "counterfactuals.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_digit_becomes_a_nine(tmp_path: Path, four: Path):
    out = tmp_path / "out"
    result = run(four, "--target", 9, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"{four}: seen as 4" in result.stdout
    assert "FOUND" in result.stdout
    saved = Counterfactual.load(out / "counterfactuals.safetensors")
    assert saved.reached.all()
    assert (pixels(out / "four-to-9.png") - saved.counterfactuals[0, 0]).abs().max() <= 0.5 / 255 + 1e-6
    with Image.open(out / "counterfactuals.png") as picture:
        assert len(picture.convert("RGB").getcolors(maxcolors=2**20)) > 50
    assert sorted(path.name for path in out.iterdir()) == [
        "counterfactuals.csv",
        "counterfactuals.png",
        "counterfactuals.safetensors",
        "four-to-9.png",
        "report.md",
    ]


def test_a_model_and_a_generator_of_one_s_own(tmp_path: Path, code: Path, small: Path):
    out = tmp_path / "out"
    result = run(small, "--target", "second", "--labels", "first, second,third", "--out", out, *own(code))
    assert result.exit_code == 0, result.output
    assert "P(second) 0." in result.stdout
    saved = Counterfactual.load(out / "counterfactuals.safetensors")
    assert saved.about["class_names"] == ["first", "second", "third"]
    assert saved.about["score"] == "P(second)"
    logits = RowClassifier()(saved.counterfactuals)
    assert float(logits.softmax(1)[0, 1].detach()) > 0.99
    [row] = table(out)
    assert row["status"] == "FOUND"
    assert float(row["end"]) == pytest.approx(float(saved.end_scores[0]), abs=1e-5)
    assert row["full_end"] == ""  # the file has the generator's size
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "(counterfactuals.png)" in report
    assert "(small-to-second.png)" in report


def test_a_larger_image_keeps_its_size_and_takes_the_change(tmp_path: Path, code: Path, wide: Path):
    out = tmp_path / "out"
    result = run(wide, "--target", 1, "--out", out, *own(code, "any_size"))
    assert result.exit_code == 0, result.output
    assert "24×40" in result.stdout
    assert "resized to 4×4" in result.stdout
    saved = Counterfactual.load(out / "counterfactuals.safetensors")
    found = pixels(out / "wide-to-1.png")
    assert found.shape == (24, 40)
    # An independent resize: each pixel of the change spreads over 6×10, so their means agree.
    change = (found - pixels(wide)).mean()
    assert float(change) == pytest.approx(float(saved.attributions.mean()), abs=0.02)
    with torch.no_grad():
        again = RowClassifier()(torch.nn.functional.adaptive_avg_pool2d(found[None, None], 4)).softmax(1)[0, 1]
    [row] = table(out)
    assert float(row["full_end"]) == pytest.approx(float(again), abs=0.02)
    assert row["full_reached"] == str(float(again) > 0.99)
    assert "at full size" in result.stdout


def test_a_model_of_one_size_is_asked_again_about_resized_images(tmp_path: Path, code: Path, wide: Path):
    out = tmp_path / "out"
    result = run(wide, "--target", 1, "--out", out, *own(code))
    assert result.exit_code == 0, result.output
    assert "about images resized to 4×4" in result.stdout
    with torch.no_grad():
        found = pixels(out / "wide-to-1.png")[None, None]
        small = torch.nn.functional.interpolate(found, (4, 4), mode="bilinear", antialias=True)
        again = RowClassifier()(small).softmax(1)[0, 1]
    assert float(table(out)[0]["full_end"]) == pytest.approx(float(again), abs=0.02)


def test_a_model_of_another_size_in_colour_and_standardised(tmp_path: Path, code: Path, small: Path):
    out = tmp_path / "out"
    arguments = [small, "--target", 1, "--out", out, "--normalize", "0.5;0.25", *own(code, "large")]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "32×32 pixels in colour" in result.stdout
    saved = Counterfactual.load(out / "counterfactuals.safetensors")
    # The model undoes what it is given: what is left is that of the generator's image.
    with torch.no_grad():
        expected = RowClassifier()(saved.counterfactuals).softmax(1)[0, 1]
    assert float(saved.end_scores[0]) == pytest.approx(float(expected), abs=0.05)
    assert run(*arguments, "--overwrite", "--model-size", 32).exit_code == 0
    assert "16×16" in run(*arguments, "--overwrite", "--model-size", 16).stderr


def test_a_generator_of_another_range(tmp_path: Path, code: Path, small: Path):
    out = tmp_path / "out"
    result = run(small, "--target", 1, "--out", out, *own(code, generator="Signed"))
    assert result.exit_code == 0, result.output
    saved = Counterfactual.load(out / "counterfactuals.safetensors")
    assert (saved.inputs[0, 0] - (2 * pixels(small) - 1)).abs().max() < 1e-6
    found = pixels(out / "small-to-1.png")
    with torch.no_grad():
        score = RowClassifier()(found[None, None]).softmax(1)[0, 1]
    assert float(score) == pytest.approx(float(saved.end_scores[0]), abs=0.05)


@pytest.mark.parametrize("model", ["shares", "one_logit"])
def test_probabilities_and_one_logit_are_told_by_themselves(tmp_path: Path, code: Path, small: Path, model: str):
    result = run(small, "--target", 1, "--out", tmp_path / "out", *own(code, model))
    assert result.exit_code == 0, result.output
    saved = Counterfactual.load(tmp_path / "out" / "counterfactuals.safetensors")
    assert saved.reached.all()
    with torch.no_grad():
        logits = RowClassifier()(saved.counterfactuals)
    expected = logits.softmax(1)[0, 1] if model == "shares" else (logits[0, 1] - logits[0, 0]).sigmoid()
    assert float(saved.end_scores[0]) == pytest.approx(float(expected), abs=1e-4)


def test_a_model_in_training_mode_learns_nothing_from_being_asked(tmp_path: Path, code: Path, small: Path):
    run(small, "--target", 1, "--out", tmp_path / "out", *own(code, "training"))
    assert int(sys.modules["captum_dcf_loaded_my"].norm.num_batches_tracked) == 0


def test_values_are_said_in_their_unit(tmp_path: Path, code: Path, small: Path):
    out = tmp_path / "out"
    before = 10 * float(pixels(small).mean())
    result = run(small, "--at-least", before + 1, "--unit", "nuclei", "--out", out, *own(code, "values"))
    assert result.exit_code == 0, result.output
    assert f"{before:.4g} -> " in result.stdout
    assert " nuclei" in result.stdout
    assert float(table(out)[0]["end"]) >= before + 1 - 1e-4
    assert (out / f"small-to-at-least-{before + 1:g}.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "holds"),
    [
        (["--at-most", "3"], lambda value: value <= 3 + 1e-4),
        (["--near", "5.5", "--tolerance", "0.2"], lambda value: abs(value - 5.5) <= 0.2 + 1e-4),
        (["--at-least", "6", "--target", "1"], lambda value: value >= 6 - 1e-4),
    ],
)
def test_every_kind_of_value(tmp_path: Path, code: Path, small: Path, arguments: list[str], holds):
    model = "two_values" if "--target" in arguments else "values"
    result = run(small, *arguments, "--out", tmp_path / "out", *own(code, model))
    assert result.exit_code == 0, result.output
    assert holds(float(table(tmp_path / "out")[0]["end"]))


def test_to_leave_the_class_that_is_seen(tmp_path: Path, code: Path, small: Path):
    dark = tmp_path / "dark.png"
    stripes = torch.full((1, 4, 4), 0.3)
    stripes[0, 2] = 0.9
    write_image(stripes, dark)
    result = run(small, dark, "--leave", "--out", tmp_path / "out", "--confidence", "0.8", *own(code))
    assert result.exit_code == 0, result.output
    saved = Counterfactual.load(tmp_path / "out" / "counterfactuals.safetensors")
    with torch.no_grad():
        before, after = RowClassifier()(saved.inputs), RowClassifier()(saved.counterfactuals)
    assert (before.argmax(1) != after.argmax(1)).all()
    goal = LeaveClass(before.argmax(1), 0.8)
    assert goal.judge(after, torch.arange(2)).reached.all()


def test_folders_are_searched_for_images(tmp_path: Path, code: Path):
    for name in ("a/x.png", "a/._x.png", "a/notes.txt", "b/x.PNG", "b/deep/y.png"):
        path = tmp_path / "faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no image") if path.name in ("._x.png", "notes.txt") else written(
            path.with_suffix(".png"), 4, 4
        ).rename(path)
    result = run(tmp_path / "faces", "--target", 1, "--out", tmp_path / "out", *own(code))
    assert result.exit_code == 0, result.output
    assert [row["file"].replace("\\", "/").split("faces/")[1] for row in table(tmp_path / "out")] == [
        "a/x.png",
        "b/deep/y.png",
        "b/x.PNG",
    ]


def test_images_that_the_generator_does_not_know_are_said_before_the_search(tmp_path: Path, code: Path, small: Path):
    write_image(torch.zeros(1, 4, 4), tmp_path / "black.png")  # 0.5 from the middle in 16 pixels: a latent of length 2
    arguments = [tmp_path / "black.png", small, "--target", 1, "--out", tmp_path / "out", "--max-steps", 1]
    result = run(*arguments, *own(code, generator="supported"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    warned = [number for number, line in enumerate(lines) if "99 %" in line]
    searched = [number for number, line in enumerate(lines) if "seen as" in line]
    assert len(warned) == 1
    assert "black.png" in lines[warned[0]]
    assert warned[0] < min(searched)
    assert "99 %" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_from_python(tmp_path: Path, code: Path, small: Path):
    said: list[str] = []
    lines = explain_files(
        [small],
        tmp_path / "out",
        model=f"{code}:values",
        generator=f"{code}:rotated",
        value=AtLeast(5.0),
        say=said.append,
    )
    assert "-> 5" in lines
    low, high = float(pixels(small).min()), float(pixels(small).max())
    assert any(f"from {low:.2f} to {high:.2f}" in line for line in said)  # the pixels that the model is shown


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    r"""A folder as ``captum-dcf train`` writes it; of another size of image than the zoo's, from the card alone."""
    shape = {"image_shape": (1, 16, 16)}
    save(ConvAutoencoder(**shape), Card("ae", "conv_autoencoder", shape, "made up"), tmp_path / "trained")
    widths = {"widths": (4, 4)}
    card = Card("net", "residual_classifier", widths, "made up", {"classes": list("abcdefghij")})
    save(ResidualClassifier(**widths), card, tmp_path / "trained")
    return tmp_path / "trained"


@pytest.mark.parametrize("named", ["{0}/net {0}/ae", "{0}/net.json {0}/ae.safetensors", "{0}/ {0}/", "{0} {0}"])
def test_a_folder_of_trained_models(tmp_path: Path, four: Path, trained: Path, named: str):
    model, generator = named.format(trained).split(" ")
    result = run(
        four, "--target", "j", "--max-steps", 2, "--out", tmp_path / "out", "--model", model, "--generator", generator
    )
    assert result.exit_code == 0, result.output
    assert "P(j)" in result.stdout  # the names of the card
    assert "log q" not in result.stdout  # an autoencoder has no density
    assert Counterfactual.load(tmp_path / "out" / "counterfactuals.safetensors").inputs.shape == (1, 1, 16, 16)


def test_files_of_one_name_are_numbered(tmp_path: Path, code: Path):
    paths = [tmp_path / folder / name for folder, name in (("a", "x.png"), ("b", "x.png"), ("c", "X.png"))]
    for seed, path in enumerate(paths):
        path.parent.mkdir()
        write_image(0.3 + 0.3 * torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(seed)), path)
    result = run(*paths, "--target", 1, "--out", tmp_path / "out", *own(code))
    assert result.exit_code == 0, result.output
    saved = Counterfactual.load(tmp_path / "out" / "counterfactuals.safetensors")
    for name, expected in zip(("x", "x-2", "X-3"), saved.counterfactuals):
        found = pixels(tmp_path / "out" / f"{name}-to-1.png")
        assert (found - expected[0]).abs().max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("name", ["new\nline.png", "四.png", "\udce4.png", "$a_{$.png", "a|b.png"])
def test_any_file_name_is_one_line_and_in_the_picture(tmp_path: Path, code: Path, small: Path, name: str):
    path = tmp_path / name
    try:
        path.write_bytes(small.read_bytes())
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such name")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = run(path, "--target", 1, "--out", tmp_path / "out", *own(code))
    assert result.exit_code == 0, result.output
    assert sum("FOUND" in line for line in result.stdout.splitlines()) == 1
    assert (tmp_path / "out" / f"{path.stem}-to-1.png").is_file()
    assert (tmp_path / "out" / "counterfactuals.png").is_file()
    lines = (tmp_path / "out" / "report.md").read_text(encoding="utf-8").splitlines()
    [line] = [line for line in lines if "FOUND" in line and line.startswith("|")]
    [head] = [line for line in lines if line.startswith("| image")]
    assert line.replace("\\|", "").count("|") == head.replace("\\|", "").count("|")


def test_on_a_full_disk_nothing_is_left(tmp_path: Path, four: Path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        result = run(four, "--target", 9, "--out", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "counterfactuals.safetensors" in result.stderr
    assert not list((tmp_path / "out").iterdir())


def test_of_many_images_the_picture_shows_the_first(
    tmp_path: Path, code: Path, small: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("captum_dcf.explain.files.ROWS", 2)
    result = run(small, small, small, "--target", 1, "--out", tmp_path / "out", *own(code))
    assert result.exit_code == 0, result.output
    assert len(Counterfactual.load(tmp_path / "out" / "counterfactuals.safetensors")) == 3
    with Image.open(tmp_path / "out" / "counterfactuals.png") as picture:
        assert picture.height < 1.5 * 150 * 3


@pytest.mark.parametrize(
    ("arguments", "received", "accepted"),
    [
        (["--target", "1", "--leave"], "say what to reach", "--leave"),
        (["--at-least", "1", "--at-most", "2"], "say what to reach", "--at-most"),
        (["--target", "7"], "class 7", "0 to 2"),
        (["--target", "blonde", "--labels", "a,blond,c"], "blonde", "blond"),
        (["--target", "blond"], "blond", "number"),
        (["--target", "1", "--labels", "a,b"], "2", "3 classes"),
        (["--target", "1", "--labels", "a,a,b"], "'a', 'a'", "name of its own"),
        (["--target", "1", "--labels", "a,,b"], "''", "name of its own"),
        (["--target", "1", "--confidence", "1.5"], "1.5", "between 0 and 1"),
        (["--at-least", "3", "--confidence", "0.9"], "0.9", "classes"),
        (["--at-least", "3"], "(1, 3)", "target"),
        (["--at-least", "3", "--target", "5"], "5", "0 to 2"),
        (["--at-least", "nan", "--target", "1"], "nan", "finite"),
        (["--near", "3", "--tolerance", "-1", "--target", "1"], "-1", "positive"),
        (["--target", "1", "--normalize", "coco"], "coco", "imagenet"),
        (["--target", "1", "--normalize", "0.5;0"], "0.0", "above 0"),
        (["--target", "1", "--normalize", "0.5,0.5;0.5"], "(0.5, 0.5)", "one or three"),
        (["--target", "1", "--normalize", "imagenet"], "1×4×4", "normalize has three numbers"),
        (["--target", "1", "--model-size", "9"], "9×9", "1×4×4"),
        (["--target", "1", "--model-size", "0"], "0", "x>=1"),
        (["--target", "1", "--device", "abacus"], "abacus", "cpu, cuda or mps"),
        (["--target", "1", "--output", "shares"], "shares", "logits"),
        (["--target", "1", "--output", "probabilities"], "probabilities", "sum to 1"),
        (["--target", "1", "--generator", "{code}:Coloured", "--model", "{code}:grey"], "1 channel", "3 channels"),
        (["--target", "1", "--model", "{code}:training"], "BatchNorm2d", ".eval()"),
        (["--target", "1", "--generator", "{code}:silent"], "silent", "image_shape"),
        (["--target", "1", "--generator", "{code}:net"], "RowClassifier", "Generator"),
        (["--target", "1", "--model", "{code}:rotated"], "is a generator", "mnist-cnn"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(
    tmp_path: Path, code: Path, small: Path, arguments: list[str], received: str, accepted: str
):
    given = [argument.format(code=code) for argument in arguments]
    result = run(small, "--out", tmp_path / "out", *own(code), *given)
    assert result.exit_code == 2, result.output
    assert received in result.stderr
    assert accepted in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_images_that_are_none(tmp_path: Path, code: Path, small: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(small.read_bytes()[:40])
    for path, says in (("empty", "no image file"), ("broken.png", "cannot be read"), ("gone.png", "no image file")):
        result = run(small, tmp_path / path, "--target", 1, "--out", tmp_path / "out", *own(code))
        assert result.exit_code == 2
        assert says in result.stderr
        assert path in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_card_without_the_shape_of_its_images(tmp_path: Path, four: Path):
    save(ConvAutoencoder(), Card("ae", "conv_autoencoder", {}, "made up"), tmp_path)
    result = run(four, "--target", 9, "--out", tmp_path / "out", "--generator", f"{tmp_path}/ae")
    assert result.exit_code == 2
    assert "ae' does not say image_shape" in result.stderr
