from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from idx import write_mnist
from PIL import Image

import captum_dcf
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


def test_the_demo_says_what_it_is_doing(tmp_path):
    result = run("demo", "--per-class", 1, "--out", tmp_path)
    lines = result.stderr.splitlines()
    assert [line.split()[0] for line in lines] == ["searching", "took"] * 3
    assert "2 images" in lines[0]


@pytest.mark.parametrize(
    ("command", "foreign"),
    [
        (["demo", "--per-class", "1"], "table.md"),
        (["demo", "--per-class", "1"], "counterfactuals.png"),
        (["explain", "{four}", "--target", "9"], "counterfactuals.png"),
        (["explain", "{four}", "--target", "9"], "counterfactuals.safetensors"),
        (["explain", "{four}", "--target", "9"], "four-to-9.png"),
        (["reproduce", "mnist", "--images", "1"], "mnist-4-to-9.md"),
        (["reproduce", "mnist", "--images", "1"], "mnist-4-to-9.csv"),
        (["benchmark", "mnist"], "report.md"),
        (["benchmark", "mnist"], "settings.json"),
        (["train", "mnist-ae-4", "--root", "{root}", "--epochs", "1"], "mnist-ae-4.safetensors"),
        (["train", "mnist-ae-4", "--root", "{root}", "--epochs", "1"], "mnist-ae-4.json"),
    ],
)
def test_no_command_replaces_a_file_that_it_did_not_write(tmp_path, four, monkeypatch, command, foreign):
    def search(*_args, **_options):
        pytest.fail("this is known before anything is searched")

    monkeypatch.setattr("captum_dcf.attr.CounterfactualAttribution.counterfactual", search)
    write_mnist(tmp_path / "root", train=20, test=10)
    out = tmp_path / "out"
    out.mkdir()
    (out / foreign).write_text("mine")
    places = {"four": four, "root": tmp_path / "root"}
    result = run(*(argument.format(**places) for argument in command), "--out", out)
    assert result.exit_code == 2
    assert f"{foreign} is there already" in result.stderr
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(foreign, "mine")]


def test_an_image_that_is_explained_is_never_replaced(tmp_path, four):
    image = tmp_path / "counterfactuals.png"
    image.write_bytes(four.read_bytes())
    result = run("explain", image, "--target", 9, "--out", tmp_path, "--overwrite")
    assert result.exit_code == 2
    assert "counterfactuals.png is one of the inputs" in result.stderr
    assert image.read_bytes() == four.read_bytes()


@pytest.mark.parametrize("command", [["demo", "--per-class", 1], ["explain", "{four}", "--target", 9]])
def test_files_of_an_earlier_call_are_replaced_on_request(tmp_path, four, command):
    command = [str(argument).format(four=four) for argument in command]
    out = tmp_path / "out"
    assert run(*command, "--out", out).exit_code == 0
    names = sorted(path.name for path in out.iterdir())
    (out / "counterfactuals.png").write_text("old")
    assert run(*command, "--out", out, "--overwrite").exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == names
    assert (out / "counterfactuals.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit(1)], ids=["by itself", "as Lightning ends it"])
def test_ctrl_c_is_one_line_and_status_130(monkeypatch, tmp_path, error):
    def train(*_args, **_options):
        raise error

    monkeypatch.setattr("captum_dcf.training.run.train", train)
    result = run("train", "mnist-cnn", "--root", tmp_path, "--out", tmp_path)
    assert result.exit_code == 130
    assert result.stderr.strip() == "captum-dcf: interrupted"


def test_a_file_that_ends_too_early_is_no_interrupt(monkeypatch, tmp_path):
    def train(*_args, **_options):
        raise EOFError("Ran out of input")

    monkeypatch.setattr("captum_dcf.training.run.train", train)
    result = run("train", "mnist-cnn", "--root", tmp_path, "--out", tmp_path)
    assert result.exit_code == 2
    assert "Ran out of input" in result.stderr


def test_torch_is_not_loaded_before_a_command_runs():
    # So that Ctrl-C while it is loaded is answered by the command.
    code = "import sys, captum_dcf.cli\nassert 'click' in sys.modules\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ctrl_c_while_a_command_loads_what_it_needs(tmp_path):
    # A module that is imported on the way, and sends the signal as a user would.
    (tmp_path / "normflows.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    path = os.pathsep.join([str(tmp_path), str(Path(captum_dcf.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-m", "captum_dcf", "demo", "--per-class", "1", "--out", str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 130
    assert done.stderr.strip() == "captum-dcf: interrupted"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explain", "{corrupt}", "--target", "9", "--out", "{out}"], "cannot be read as an image"),
        (["explain", "{missing}", "--target", "9", "--out", "{out}"], "no image file"),
        (["explain", "{four}", "--target", "12", "--out", "{out}"], "out of range"),
        (["explain", "{four}", "--target", "9", "--out", "{out}", "--model", "resnet"], "mnist-cnn"),
        (["explain", "{four}", "--target", "nine", "--out", "{out}"], "no class 'nine'"),
        (
            ["explain", "{four}", "--target", "9", "--out", "{out}", "--generator", "mnist-cnn"],
            "'mnist-cnn' is no generator",
        ),
        (["explain", "{four}", "--target", "9", "--out", "{out}", "--model", "mnist-glow"], "no classifier"),
        (["explain", "{four}", "--target", "9", "--out", "{out}", "--generator", "{out}/flow"], "no model 'flow'"),
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


def test_no_progress_bar_is_written_to_a_log(monkeypatch, tmp_path):
    shown = []

    def run_plan(_plan, out, show_progress):
        shown.append(show_progress)
        (out / "report.md").write_text("report")

    monkeypatch.setattr("captum_dcf.benchmark.read_plan", lambda *_arguments: None)
    monkeypatch.setattr("captum_dcf.benchmark.run", run_plan)
    assert run("benchmark", "mnist", "--out", tmp_path).exit_code == 0
    monkeypatch.setattr("captum_dcf.cli.is_terminal", lambda: True)
    assert run("benchmark", "mnist", "--out", tmp_path).exit_code == 0
    assert shown == [False, True]
