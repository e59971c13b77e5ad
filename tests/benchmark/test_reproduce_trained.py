r"""The paper's tables of data that a user has, end to end: a folder in the layout of CelebA, recipes, tables."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from layouts import write_celeba

from captum_dcf.benchmark.images import open_data
from captum_dcf.benchmark.reproduce import PLANS, reproduce_trained
from captum_dcf.benchmark.toml import read_table
from captum_dcf.cli import main
from captum_dcf.training.recipes import RECIPES

SHAPE = [3, 16, 16]
SMALL = {
    "glow": {"image_shape": SHAPE, "steps": [1, 1], "hidden_channels": [4, 4], "bins": 32},
    "conv_classifier": {
        "in_channels": 3,
        "image_size": 16,
        "blocks": [[4, 4]],
        "hidden": [8],
        "num_classes": 2,
        "dropout": 0.0,
    },
    "residual_classifier": {"in_channels": 3, "widths": [4, 4], "num_classes": 2},
    "conv_autoencoder": {"image_shape": SHAPE, "latent": 8, "channels": [4, 4]},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    r"""A folder in the layout of CelebA, and one of the small models that small recipes have trained on it."""
    pytest.importorskip("lightning")
    from captum_dcf.training.run import train

    root, weights = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("weights")
    write_celeba(root, images=48)
    with pytest.MonkeyPatch.context() as patched:
        for name in [name for name in RECIPES if name.startswith("celeba-")]:
            small = SMALL[RECIPES[name].architecture]
            # The classifier has to tell the two classes apart, or there is nothing to search.
            epochs, rate = (15, 1e-2) if name == "celeba-cnn" else (1, 1e-3)
            recipe = replace(RECIPES[name], arguments=small, image_shape=SHAPE, learning_rate=rate, batch_size=8)
            patched.setitem(RECIPES, name, recipe)
            train(name, root, weights, epochs=epochs)
    return root, weights


def figures(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return {(row["metric"], row["method"]): row for row in csv.DictReader(file)}


def test_the_tables_of_a_few_faces(trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def read_shortened(name: str) -> tuple[dict[str, Any], Path]:
        table, folder = read_table(name)
        # What so small a classifier is sure of.
        table["confidences"] = [0.6]
        for entry in table["methods"].values():
            entry.update({name: 30 for name in ("max_steps", "samples", "max_samples") if name in entry})
        return table, folder

    monkeypatch.setattr("captum_dcf.benchmark.reproduce.read_table", read_shortened)
    root, weights = trained
    text = reproduce_trained("celeba", tmp_path, root, weights, limit=2)
    for name in PLANS["celeba"]:
        assert (tmp_path / f"{name}.md").read_text(encoding="utf-8").strip() in text
    # Published means stand below means, published medians below medians.
    means, medians = text.split("# CelebA, not blond → blond: rivals")
    assert "0.807 ± 0.222" in means.split("## Medians")[0]
    assert "9.11" in medians.split("## Medians")[1]
    assert "9.11" not in medians.split("## Medians")[0]
    rows, rivals = (figures(tmp_path / f"{name}.csv") for name in PLANS["celeba"])
    assert float(rows["L2 in X to source", "originals"]["mean"]) == 0
    assert float(rows["found", "Z, default"]["mean"]) > 0
    assert float(rows["L2 in X to source", "Z, default"]["mean"]) > 0
    assert {method for _, method in rivals} >= {"X", "ours, default", "Joshi", "Zhao", "Looveren"}
    # It goes on where it was stopped, wherever the weights are.
    moved = weights.rename(weights.with_name("moved"))
    shard = tmp_path / "celeba" / "shards" / "00000000.jsonl"
    before = shard.stat().st_mtime_ns
    assert reproduce_trained("celeba", tmp_path, root, moved, limit=2) == text
    assert shard.stat().st_mtime_ns == before
    moved.rename(weights)


def test_what_a_user_must_have_is_named(trained: tuple[Path, Path], tmp_path: Path):
    root, _ = trained
    with pytest.raises(FileNotFoundError, match=r"list_attr_celeba\.txt") as caught:
        reproduce_trained("celeba", tmp_path, tmp_path, None)
    assert "mmlab.ie.cuhk.edu.hk" in str(caught.value)
    for weights in (None, tmp_path):
        with pytest.raises(FileNotFoundError, match="captum-dcf train") as caught:
            reproduce_trained("celeba", tmp_path / "out", root, weights)
        assert all(name in str(caught.value) for name in ("celeba-glow", "celeba-cnn", "celeba-ae-1"))
    with pytest.raises(ValueError, match="'mall'"):
        reproduce_trained("mall", tmp_path, root, None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["celeba", "--source", "3"], "--source"),
        (["mnist", "--weights", "{out}"], "--weights"),
        (["celeba"], "root"),
        (["chexpert", "--root", "{out}"], "train.csv"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, arguments: list[str], says: str):
    places = {"out": str(tmp_path)}
    result = CliRunner().invoke(
        main, ["reproduce", *(one.format(**places) for one in arguments), "--out", str(tmp_path / "new")]
    )
    assert result.exit_code == 2
    assert says in result.stderr


@pytest.mark.parametrize("data", PLANS)
def test_its_models_are_those_of_the_recipes(data: str):
    for name in PLANS[data]:
        table, _ = read_table(name)
        entries = [*table["methods"].values(), *table["metrics"].values()]
        named = {entry[key] for entry in entries for key in ("oracle", "autoencoder", "generator") if key in entry}
        assert {table["model"], *table["generators"], *named} - {"svm"} <= set(RECIPES)
        assert set(table["published"]) <= {*table["metrics"], "found"}
        for one in table["expected"]:
            assert one["metric"] in table["metrics"]
            assert {one["greater"], one["smaller"]} <= set(table["methods"])
        for by_method in table["published"].values():
            assert set(by_method) <= set(table["methods"])


def test_a_plan_names_the_attribute(tmp_path: Path):
    write_celeba(tmp_path)
    table = {"source": "celeba", "split": "train", "attribute": "Smiling", "classes": ["Smiling"]}
    data = open_data(table, tmp_path, tmp_path, SHAPE)
    assert [label for _, label in (data.images[place] for place in range(3))] == [1, 1, 1]
    assert data.class_names == {0: "not Smiling", 1: "Smiling"}
    with pytest.raises(ValueError, match=r"attribute.*'colour'"):
        open_data({"source": "celeba", "colour": "blond"}, tmp_path, tmp_path, SHAPE)
