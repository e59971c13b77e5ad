r"""Kinds of models on images of one's own: recipes from the images alone, on the command line and from Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("lightning")
pytest.importorskip("torchvision")

from captum_dcf import DiffeomorphicCounterfactual, Generator, zoo
from captum_dcf.cli import main
from captum_dcf.data.files import read_images, write_image
from captum_dcf.models.registry import architecture
from captum_dcf.training import fit_autoencoder, fit_classifier, fit_flow, fit_gan, fit_regressor, fit_vae
from captum_dcf.training.command import parse_arguments
from captum_dcf.training.kinds import KINDS, recipe_for
from captum_dcf.training.recipes import OBJECTIVES, Recipe

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL_GLOW = {"steps": [1, 1], "hidden_channels": [4, 4]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    r"""Thirty small colour images a class: dark cats, bright dogs."""
    torch.manual_seed(0)
    for name, low in (("cat", 0.0), ("dog", 0.6)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(30):
            write_image(low + 0.4 * torch.rand(3, 10, 12), tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


@pytest.mark.parametrize("kind", KINDS)
def test_the_recipe_of_a_kind_names_what_is_there_and_is_json(kind: str):
    recipe = recipe_for(kind, (3, 32, 32), 900, None if kind == "regressor" else 4)
    assert Recipe(**json.loads(json.dumps(asdict(recipe)))) == recipe
    assert architecture(recipe.architecture)
    assert recipe.objective in OBJECTIVES
    assert recipe.image_shape == [3, 32, 32]
    assert 1 <= recipe.batch_size <= 90


def test_every_number_of_a_recipe_can_be_another():
    changes = {"batch_size": 7, "learning_rate": 0.5, "weight_decay": 0.25, "augment": ["shift_two_pixels"]}
    recipe = recipe_for("glow", (1, 8, 8), 50, None, SMALL_GLOW, {"column": "age"}, **changes)
    assert {part: asdict(recipe)[part] for part in changes} == changes
    assert SMALL_GLOW.items() <= recipe.arguments.items()
    assert recipe.source_arguments == {"column": "age"}


@pytest.mark.parametrize("images", [1, 9, 100, 10**6])
def test_few_images_are_more_than_one_step_and_many_are_one_epoch(images: int):
    recipe = recipe_for("glow", (1, 16, 16), images)
    assert recipe.batch_size == min(64, max(1, images // 10))
    assert recipe.epochs >= 1


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match=r"'diffusion'; known are .*'glow'"):
        recipe_for("diffusion", (1, 16, 16), 100)


def test_from_a_folder_to_a_counterfactual(data: Path, tmp_path: Path):
    classifier = fit_classifier(data, size=16, epochs=12, out=tmp_path / "cnn")
    generator = fit_flow(data, size=16, epochs=2, arguments=SMALL_GLOW, batch_size=8)
    assert isinstance(generator, Generator)
    assert not generator.training
    assert generator.support is not None
    assert generator.support.of == "log_prob"
    card = zoo.read_card("classifier", tmp_path / "cnn")
    assert card.classes == ["cat", "dog"]
    assert card.training["image_shape"] == [3, 16, 16]
    cats = read_images(sorted((data / "cat").glob("*.png"))[:3], (3, 16, 16))
    result = DiffeomorphicCounterfactual(classifier, generator).counterfactual(cats, target=1, confidence=0.5)
    assert result.counterfactuals.shape == (3, 3, 16, 16)


def test_the_command_writes_weights_card_table_and_pictures(data: Path, tmp_path: Path):
    arguments = [f"--argument={name}={json.dumps(value)}" for name, value in SMALL_GLOW.items()]
    out, options = tmp_path / "gen", ["--size", 16, "--batch-size", 8, *arguments]
    result = run("glow", "--data", data, "--out", out, "--epochs", 2, "--credit", "pets, by nobody", *options)
    assert result.exit_code == 0, result.output
    names = {"glow.ckpt", "glow.csv", "glow.json", "glow.safetensors", "glow-samples.png", "glow-reconstructions.png"}
    assert {path.name for path in out.iterdir()} == names
    card = zoo.read_card("glow", out)
    assert card.data.endswith("training images of pets, by nobody")
    assert SMALL_GLOW.items() <= card.arguments.items()
    assert len(card.support["quantiles"]) == 101
    assert card.classes == []
    rows = [row.split(",") for row in (out / "glow.csv").read_text().splitlines()]
    assert rows[0] == ["epoch", "step", "minutes", "loss", "bits_per_dimension"]
    assert [float(row[0]) for row in rows[1:]] == [1, 2]
    with Image.open(out / "glow-samples.png") as picture:
        assert picture.width == 8 * (4 * 16 + 1)
    # Said before it begins: what, on what, how long.
    assert "glow on" in result.stderr
    assert "3×16×16" in result.stderr
    assert result.stderr.count("epoch ") == 2
    again = run("glow", "--data", data, "--out", out, "--epochs", 2, "--credit", "pets, by nobody", *options)
    assert again.exit_code == 2
    assert "has 2 epochs already" in again.stderr


@pytest.mark.parametrize("fit", [fit_vae, fit_gan, fit_autoencoder])
def test_generators_of_other_kinds(data: Path, tmp_path: Path, fit: Callable[..., Generator]):
    generator = fit(data, size=16, epochs=1, out=tmp_path / "out", arguments={"latent": 8, "channels": [4, 4]})
    [name] = zoo.names(tmp_path / "out")
    assert generator.support.of == "latent_length"
    assert generator.encode(torch.rand(2, 3, 16, 16)).shape == (2, 8)
    for part in ("samples", "reconstructions"):
        assert (tmp_path / "out" / f"{name}-{part}.png").is_file()


def test_values_of_a_table_are_learned(data: Path, tmp_path: Path):
    lines = [f"{path.parent.name}/{path.name},{60.5 if path.parent.name == 'dog' else 20}" for path in data.glob("*/*")]
    (data / "ages.csv").write_text("\n".join(["file,age", *lines]))
    model = fit_regressor(data / "ages.csv", size=16, epochs=8, column="age", out=tmp_path / "out")
    dogs, cats = (read_images(list((data / name).glob("*.png")), (3, 16, 16)) for name in ("dog", "cat"))
    with torch.no_grad():
        assert model(dogs).mean() > model(cats).mean() + 5
    card = zoo.read_card("regressor", tmp_path / "out")
    assert card.training["source_arguments"]["column"] == "age"
    assert card.classes == []
    assert "--column age" in card.training["command"]


def test_minutes_set_the_schedule(data: Path, tmp_path: Path):
    options = ["--data", data, "--size", 16, "--out", tmp_path / "out", "--name", "pets", "--channels", 1]
    result = run("classifier", *options, "--minutes", 0.02)
    assert result.exit_code == 0, result.output
    card = zoo.read_card("pets", tmp_path / "out")
    assert "--minutes 0.02" in card.training["command"]
    assert card.training["steps"] >= 1
    assert card.training["image_shape"] == [1, 16, 16]
    assert zoo.load("pets", tmp_path / "out")(torch.rand(2, 1, 16, 16)).shape == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["glow"], "--data FOLDER"),
        (["glow", "--data", "{data}", "--minutes", "1", "--epochs", "1"], "minutes or for epochs"),
        (["glow", "--data", "{data}", "--argument", "steps"], "received 'steps'"),
        (["glow", "--data", "{data}", "--argument", "beauty=3"], "beauty"),
        (["classifier", "--data", "{data}/cat"], "classes"),
        (["mnist-cnn", "--size", "32"], "--size belongs to glow"),
        (["diffusion", "--data", "{data}"], "'diffusion'"),
    ],
)
def test_a_mistake_is_one_line(data: Path, tmp_path: Path, arguments: list[str], says: str):
    result = run(*(one.format(data=data) for one in arguments), "--out", tmp_path / "out")
    assert result.exit_code == 2
    # What was found in the folder may stand above.
    *_, line = result.stderr.splitlines()
    assert line.startswith("captum-dcf: ")
    assert says in line


def test_arguments_are_json():
    assert parse_arguments(["steps=[8,8]", 'name="a=b"']) == {"steps": [8, 8], "name": "a=b"}
