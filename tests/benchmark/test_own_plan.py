r"""A plan of a user's own: their folder of images, their model and their generator, classes by name."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from captum_dcf.benchmark import read_plan, run
from captum_dcf.data.files import write_image

CODE = """
import torch
from toys import Rotated, RowClassifier

def net():
    return RowClassifier()

def binary():
    return lambda x: 100 * (x[:, 0, 2].mean(1) - 0.5)

def generator():
    return Rotated()

class Same(torch.nn.Module):
    def forward(self, x):
        return x
"""
PLAN = """
title = "Stripes"
model = "code/my.py:net"
generators = ["code/my.py:generator"]
goal = { reach = "third" }
confidences = [0.6]
shard_size = 4

[data]
source = "folder"
root = "stripes"
references = "stripes"
image_shape = [1, 4, 4]
classes = ["first", "third"]

[methods."did nothing"]
method = "Original"

[methods.ours]
method = "DiffeomorphicCounterfactual"

[methods."nearest real"]
method = "NearestReal"

[metrics.l2_input]

[metrics.l2_latent]

[metrics.l2_latent_encoded]

[metrics.denoised_validity]
autoencoder = "code/my.py:Same"

[metrics.denoised_source]
autoencoder = "code/my.py:Same"
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    for label, name in enumerate(["first", "second", "third"]):
        folder = tmp_path / "stripes" / name
        folder.mkdir(parents=True)
        for number in range(2):
            image = torch.full((1, 4, 4), 0.1 * (number + 1))
            image[0, label] = 0.8
            write_image(image, folder / f"{number}.png")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my.py").write_text(CODE, encoding="utf-8")
    path = tmp_path / "stripes.toml"
    path.write_text(PLAN, encoding="utf-8")
    return path


def changed(path: Path, *pairs: tuple[str, str]) -> Path:
    text = path.read_text(encoding="utf-8")
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return path


def table(out: Path, name: str = "table.csv") -> list[dict[str, str]]:
    with (out / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_from_a_folder_and_a_file_of_code_to_a_table(plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "elsewhere").mkdir()
    # What the plan names is found from the plan, wherever it is run.
    monkeypatch.chdir(tmp_path / "elsewhere")
    out = run(read_plan(plan), tmp_path / "out")
    rows = table(out)
    assert [row["label"] for row in rows] == ["first", "first", "third", "third"] * 3
    assert {row["target"] for row in rows} == {"third"}
    assert [row["already_there"] for row in rows] == ["False", "False", "True", "True"] * 3
    found = {name: [row["found"] for row in rows if row["method"] == name][:2] for name in ("did nothing", "ours")}
    assert found == {"did nothing": ["False"] * 2, "ours": ["True"] * 2}
    nothing, ours, nearest = (rows[start : start + 2] for start in (0, 4, 8))
    # The generator is orthogonal, and no pixel leaves the range.
    for row in ours:
        assert float(row["l2_latent"]) == pytest.approx(float(row["l2_input"]), rel=1e-3)
        assert float(row["l2_latent_encoded"]) == pytest.approx(float(row["l2_input"]), rel=1e-3)
    assert [row["l2_latent"] for row in nothing + nearest] == [""] * 4
    assert [row["denoised_validity"] for row in ours + nearest] == ["1.0"] * 4
    assert [row["denoised_source"] for row in nothing + nearest] == ["1.0"] * 2 + ["0.0"] * 2
    assert all(float(one["l2_input"]) > float(other["l2_input"]) for one, other in zip(nearest, ours))
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "goal reach third" in report
    assert "| 2             | 2/2   |" in report


def test_the_nearest_real_image_of_an_image_of_the_class_is_itself(plan: Path):
    read = read_plan(plan)
    [nearest] = [method for method in read.methods if method.name == "nearest real"]
    images = torch.stack([read.images[number][0] for number in (2, 3)])
    torch.testing.assert_close(nearest.explain(images, read.goal(torch.tensor([2, 2]))), images)


def test_other_weights_of_the_users_are_another_run(plan: Path, tmp_path: Path):
    out = run(read_plan(plan), tmp_path / "out")
    (out / "shards" / "00000000.jsonl").rename(out / "shards" / "00000007.jsonl")
    other = "return RowClassifier().apply(lambda part: getattr(part, 'bias', torch.zeros(1)).data.fill_(0.01))"
    changed(plan.parent / "code" / "my.py", ("return RowClassifier()", other))
    with pytest.raises(ValueError, match=r"my\.py:net"):
        run(read_plan(plan), out)


def test_parameters_that_come_from_elsewhere_are_known_by_their_values(plan: Path):
    code, weights = plan.parent / "code" / "my.py", plan.parent / "weights.pt"
    loaded = (
        f"    rows = RowClassifier()\n    rows.register_buffer('scale', torch.load({str(weights)!r}))\n    return rows"
    )
    changed(code, ("    return RowClassifier()", loaded))
    hashes = []
    for value in (1.0, 2.0, 1.0):
        torch.save(torch.tensor(value), weights)
        hashes.append(read_plan(plan).settings["weights"]["code/my.py:net"])
    assert hashes[0] == hashes[2] != hashes[1]


def test_a_model_of_one_logit(plan: Path, tmp_path: Path):
    changed(
        plan, ("my.py:net", "my.py:binary"), ('reach = "third"', "reach = 1"), ('"first", "third"', '"first", "second"')
    )
    changed(plan, ('title = "Stripes"', 'output = "binary_logit"'), ('references = "stripes"\n', ""))
    changed(plan, ('[methods."nearest real"]\nmethod = "NearestReal"', ""))
    rows = table(run(read_plan(plan), tmp_path / "out"))
    found = {name: {row["found"] for row in rows if row["method"] == name} for name in ("did nothing", "ours")}
    assert found == {"did nothing": {"False"}, "ours": {"True"}}
    assert {row["denoised_source"] for row in rows if row["method"] == "did nothing"} == {"1.0"}


def test_a_value_near_another(plan: Path, tmp_path: Path):
    changed(plan, ('{ reach = "third" }', "{ near = 0.3, tolerance = 0.02 }"), ("confidences = [0.6]\n", ""))
    code = plan.parent / "code" / "my.py"
    changed(code, ("    return RowClassifier()\n", "    return lambda x: x.mean((1, 2, 3))\n"))
    text = plan.read_text(encoding="utf-8").split('[methods."nearest real"]')[0]
    plan.write_text(text + "[metrics.l2_input]\n", encoding="utf-8")
    out = run(read_plan(plan), tmp_path / "out")
    ours = [row for row in table(out) if row["method"] == "ours"]
    assert {row["found"] for row in ours if row["already_there"] == "False"} == {"True"}
    assert [float(row["target"]) for row in ours] == pytest.approx([0.3] * len(ours))
    assert "goal near 0.3, tolerance 0.02" in (out / "report.md").read_text(encoding="utf-8")


@pytest.fixture
def listed(plan: Path) -> Path:
    files = [f"stripes/{name}/{number}.png" for name in ("first", "second", "third") for number in range(2)]
    kinds = [f"{file},{'yes' if 'third' in file else 'no'},{number // 2}.5" for number, file in enumerate(files)]
    (plan.parent / "list.csv").write_text("\n".join(["file,third,number", *kinds]), encoding="utf-8")
    data = 'source = "images"\nroot = "list.csv"\nholdout = 0.5\nreferences = "list.csv"\n'
    old = 'source = "folder"\nroot = "stripes"\nreferences = "stripes"\n'
    return changed(plan, (old, data), ('classes = ["first", "third"]\n', 'column = "third"\n'))


def test_a_table_of_files_and_the_images_that_are_held_out(listed: Path):
    changed(listed, ('reach = "third"', 'reach = "yes"'))
    plan = read_plan(listed)
    assert 0 < plan.length < 6
    assert plan.class_names == {0: "no", 1: "yes"}
    assert plan.goal(torch.tensor([0])).label.tolist() == [1]


def test_other_labels_are_another_run(listed: Path):
    changed(listed, ('reach = "third"', 'reach = "yes"'))
    before = read_plan(listed).settings["files"]
    table_of_files = listed.parent / "list.csv"
    changed(table_of_files, (",no", ",maybe"))
    assert read_plan(changed(listed, ('reach = "yes"', 'reach = "maybe"'))).settings["files"] == before
    changed(table_of_files, ("first/0.png,maybe", "first/0.png,yes"), ("first/1.png,maybe", "first/1.png,yes"))
    changed(table_of_files, ("second/0.png,maybe", "second/0.png,yes"))
    assert read_plan(listed).settings["files"] != before


def test_labels_that_are_values_have_no_names(listed: Path):
    changed(listed, ('{ reach = "third" }', "{ shift = 0.5 }"), ("confidences = [0.6]\n", ""), ('"third"', '"number"'))
    plan = read_plan(listed)
    assert plan.class_names == {}
    assert plan.goal(torch.tensor([1.5])).value.tolist() == [2.0]
