from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from idx import write_mnist

import captum_dcf
from captum_dcf.benchmark import bundled, read_plan
from captum_dcf.benchmark.binding import CAPTUM
from captum_dcf.benchmark.catalog import BOUNDS, COUNTERFACTUALS
from captum_dcf.benchmark.images import open_data
from captum_dcf.benchmark.saliency import SALIENCY
from captum_dcf.benchmark.toml import read_table
from captum_dcf.cli import main
from captum_dcf.data.files import write_image
from captum_dcf.metrics import METRICS
from captum_dcf.models.autoencoder import ConvAutoencoder
from captum_dcf.models.classifier import ConvClassifier
from captum_dcf.zoo.store import Card, save

PLANS = Path(captum_dcf.__file__).parent / "benchmark" / "plans"
TOML = """
title = "Toys"
model = "toy-cnn"
generators = ["toy-ae"]
goal = { reach = 1 }
confidences = [0.05]
shard_size = 2
weights = "weights"

[data]
source = "folder"
root = "images"
references = "reference"

[methods.ours]
method = "DiffeomorphicCounterfactual"
max_steps = 2

[methods.FGSM]
epsilon = 0.2

[metrics.l2_input]

[metrics.latent]
metric = "l2_latent_encoded"
generator = "toy-ae"

[metrics.neighbor_agreement]
k = 2
"""


@pytest.fixture
def toml(tmp_path):
    torch.manual_seed(0)
    arguments = {"blocks": [[2, 2], [2, 2]], "hidden": [4], "num_classes": 3}
    save(ConvClassifier(**arguments), Card("toy-cnn", "conv_classifier", arguments, "noise"), tmp_path / "weights")
    arguments = {"image_shape": [1, 28, 28]}
    save(ConvAutoencoder(**arguments), Card("toy-ae", "conv_autoencoder", arguments, "noise"), tmp_path / "weights")
    for number in range(3):
        folder = tmp_path / "images" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        write_image(torch.rand(1, 28, 28), folder / f"{number}.png")
    shutil.copytree(tmp_path / "images", tmp_path / "reference")
    path = tmp_path / "toy.toml"
    path.write_text(TOML, encoding="utf-8")
    return path


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def changed(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


def test_a_toml_file_becomes_a_table(tmp_path, toml):
    (tmp_path / "images" / "0" / "broken.png").write_bytes(b"\x89PNG")
    out = tmp_path / "out"
    result = invoke("benchmark", toml, "--out", out)
    assert result.exit_code == 0, result.output
    assert (out / "report.md").read_text(encoding="utf-8") in result.stdout
    with (out / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2
    assert {(row["method"], row["generator"], row["confidence"]) for row in rows} == {
        ("ours", "toy-ae", "0.05"),
        ("FGSM", "toy-ae", "0.05"),
    }
    broken = [row for row in rows if row["error"]]
    assert [row["method"] for row in broken] == ["ours", "FGSM"]
    assert all("broken.png" in row["error"] for row in broken)
    assert all(row["l2_input"] and row["latent"] and row["neighbor_agreement"] for row in rows if not row["error"])
    assert [row["label"] for row in rows if row["method"] == "ours" and not row["error"]] == ["0", "0", "1"]


def test_options_take_the_place_of_what_the_file_says(toml):
    plan = read_plan(toml, images=2, confidences=[0.3, 0.4])
    assert plan.length == 2
    assert {method.confidence for method in plan.methods} == {0.3, 0.4}
    assert plan.settings["plan"]["confidences"] == [0.3, 0.4]
    assert set(plan.settings["weights"]) == {"toy-cnn", "toy-ae"}


def test_the_weights_of_judges_belong_to_the_settings(toml):
    judged = changed(
        toml, "[metrics.l2_input]", '[metrics.judge]\nmetric = "oracle_agreement"\noracle = "mnist-oracle"'
    )
    assert set(read_plan(judged).settings["weights"]) == {"toy-cnn", "toy-ae", "mnist-oracle"}
    assert {f"mnist-ae-{digit}" for digit in range(10)} < set(read_plan("mnist").settings["weights"])


def test_a_run_does_not_go_on_with_other_files(tmp_path, toml):
    assert invoke("benchmark", toml, "--out", tmp_path / "out").exit_code == 0
    images = toml.parent / "images"
    first = sorted((images / "0").iterdir())[0]
    first.rename(first.with_name("zzz.png"))
    result = invoke("benchmark", toml, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "settings.files is" in result.stderr


def test_other_files_beside_the_images_are_left_alone(tmp_path, toml):
    before = len(read_plan(toml).images)
    for folder in ("images", "reference"):
        (tmp_path / folder / "0" / ".DS_Store").write_bytes(b"no image")
        (tmp_path / folder / "7").write_text("no folder", encoding="utf-8")
    plan = read_plan(toml)
    assert len(plan.images) == before
    assert invoke("benchmark", toml, "--out", tmp_path / "out").exit_code == 0


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            '"DiffeomorphicCounterfactual"',
            '"Diffeo"',
            "unknown method: 'Diffeo'; known are Original, NearestReal",
        ),
        ("[metrics.l2_input]", "[metrics.lpips]", "unknown metric: 'lpips'; known are cout, deletion"),
        ("max_steps = 2", "steps = 2", "unknown arguments of 'ours': 'steps'; known are adam"),
        ("k = 2", "n = 2", "unknown arguments of the metric 'neighbor_agreement': 'n'; known are k"),
        ("[metrics.l2_input]", '[metrics.a]\nmetric = "oracle_agreement"', "'a' is not complete: it needs oracle"),
        ('model = "toy-cnn"', 'model = "vgg"', "no model 'vgg'"),
        ('generators = ["toy-ae"]', 'generators = ["toy-cnn"]', "'toy-cnn' is no generator"),
        ("goal = { reach = 1 }", "", "does not say goal"),
        ("reach = 1", "catch = 1", "goal must be one of reach, leave, at_least, at_most, near, shift"),
        ("reach = 1", "reach = 1, leave = true", "goal must be one of reach, leave"),
        ("reach = 1", 'reach = "nine"', "goal.reach: no class 'nine': there are '0', '1'"),
        ("reach = 1", "reach = 1, tolerance = 2", "goal must be one of reach, leave"),
        ("reach = 1", "near = 1, tolerance = 0", "goal.near: tolerance must be positive and finite, received 0"),
        ("reach = 1", "reach = -1", "goal.reach: the class to reach must be at least 0, received -1"),
        ("reach = 1", "leave = false", "goal.leave: leave must be true, received False"),
        ("reach = 1", 'at_least = "x"', "goal.at_least: a value must be a number, received 'x'"),
        ("reach = 1", "shift = 0", "must not be 0"),
        ("reach = 1", "shift = 0.5", "only classes are reached with a confidence, received confidences [0.05]"),
        ('weights = "weights"', 'weights = "wieghts"', "there is no folder of weights"),
        ('title = "Toys"', "title = 2020-01-01", "title must be a string"),
        ('references = "reference"', 'classes = "4"', "a list of numbers or names, received '4'"),
        ('references = "reference"', "classes = [7]", "no example of the classes [7]: there are [0, 1]"),
        ('references = "reference"', 'classes = ["4"]', "no class '4': there are '0', '1'"),
        ('references = "reference"', "image_shape = 28", "a list such as [3, 64, 64], received 28"),
        ('references = "reference"', "column = 3", "of 'folder' may say root, split, image_shape"),
        ('title = "Toys"', 'output = "logit"', "logits, probabilities, binary_logit, received 'logit'"),
        ('model = "toy-cnn"', 'model = "my.py:net"', "no file"),
        ('references = "reference"', "max_references = 0", "int from 1 on, received 0"),
        ('source = "folder"', 'source = "cifar"', "no source 'cifar'; known are"),
        ("goal = { reach = 1 }", "goal = { reach = 1 }\ncolour = 2", "says colour; known are model"),
        ('source = "folder"', "", "data must say a source"),
        ('root = "images"', 'root = "nothing"', "no images in"),
        ("[methods.ours]", "[methods", "is not TOML"),
        ("confidences = [0.05]", "confidences = [1.5]", "confidence must lie between 0 and 1"),
        ("reach = 1", "reach = 7", "class 7 is out of range"),
        ("confidences = [0.05]", "confidences = []", "at least one Λ, received []"),
        ('generators = ["toy-ae"]', 'generators = "toy-ae"', "must be a list of names, received 'toy-ae'"),
        ("max_steps = 2", 'adam = "x"', "'ours': adam must be a learning rate, received 'x'"),
        ("max_steps = 2", 'refine = true\nautoencoder = "a"', "'autoencoder'"),
        ('generators = ["toy-ae"]', 'generators = [["a"]]', "list of names, received [['a']]"),
        ('generators = ["toy-ae"]', 'generators = ["toy-ae", "toy-ae"]', "must differ, received ['toy-ae', 'toy-ae']"),
        ('model = "toy-cnn"', 'model = ["toy-cnn"]', "model must be a string, received ['toy-cnn']"),
        ('method = "DiffeomorphicCounterfactual"', "method = [1]", "must be a name, received [1]"),
        ('weights = "weights"', "weights = 3", "weights must be a string, received 3"),
        ('root = "images"', "root = 3", "root of the data must be a string, received 3"),
        ("[metrics.l2_input]", "[expected]\na = 1\n[metrics.l2_input]", "expected must be a list of tables"),
        ("[metrics.l2_input]", '[[expected]]\nmetric = "l1"\n[metrics.l2_input]', "expected must say metric, greater"),
        ("[data]", 'published_are = "modes"\n[data]', "'means' or 'medians', received 'modes'"),
        (
            "[metrics.l2_input]",
            "[published]\nl1 = 3\n[metrics.l2_input]",
            "published.l1 must be a TOML table",
        ),
        ("[metrics.l2_input]", "[metrics.im1]\nautoencoders = 3", "for the class, received 3"),
        ("[metrics.l2_input]", '[metrics.im1]\nautoencoders = "toy-ae"', "for the class, received 'toy-ae'"),
        ("[metrics.l2_input]", '[metrics.im1]\nautoencoders = "a-{x}"', "for the class, received 'a-{x}'"),
        ("[methods.ours]", "[methods]\nfirst = 3\n[methods.ours]", "methods.first must be a TOML table, received 3"),
        ("[methods.FGSM]", "[methods.Saliency]", "arguments of 'Saliency': 'epsilon'; known are abs"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_status_2(tmp_path, toml, old, new, says):
    result = invoke("benchmark", changed(toml, old, new), "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("captum-dcf: ")
    assert result.stdout == ""


@pytest.mark.parametrize("part", ["methods", "metrics"])
def test_a_list_in_the_place_of_a_table_is_refused(tmp_path, toml, part):
    text = toml.read_text(encoding="utf-8")
    kept = text.split("[metrics.l2_input]")[0] if part == "metrics" else text.split("[methods.ours]")[0]
    other = "[metrics.l2_input]\n" if part == "methods" else ""
    toml.write_text(f'{part} = ["l1"]\n{kept}\n{other}', encoding="utf-8")
    result = invoke("benchmark", toml, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert f"{part} must be a TOML table, received ['l1']" in result.stderr


def test_a_plan_in_another_encoding_is_refused_by_name(tmp_path):
    path = tmp_path / "latin.toml"
    path.write_bytes('title = "Ü"'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.toml.*UTF-8"):
        read_plan(path)


@pytest.mark.parametrize("device", ["gpu", "meta"])
def test_a_device_for_which_there_is_no_run_is_refused(toml, device):
    with pytest.raises(ValueError, match=f"cpu, cuda or mps.*{device}"):
        read_plan(toml, device=device)


def test_a_run_does_not_go_on_with_other_pixels_in_files_of_the_same_size(tmp_path, toml):
    assert invoke("benchmark", toml, "--out", tmp_path / "out").exit_code == 0
    (tmp_path / "out" / "shards" / "00000001.jsonl").unlink()
    file = sorted((tmp_path / "images" / "0").iterdir())[0]
    content = file.read_bytes()
    # Such as a BMP of another image: as long as the first.
    file.write_bytes(content[:-20] + bytes(20))
    result = invoke("benchmark", toml, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "settings.files is" in result.stderr
    file.write_bytes(content)
    assert invoke("benchmark", toml, "--out", tmp_path / "out").exit_code == 0


def test_a_mistake_in_a_plan_does_not_lock_its_folder(tmp_path, toml):
    out = tmp_path / "out"
    wrong = invoke("benchmark", changed(toml, "max_steps = 2", "max_steps = 0"), "--out", out)
    assert wrong.exit_code == 2
    assert invoke("benchmark", changed(toml, "max_steps = 0", "max_steps = 2"), "--out", out).exit_code == 0


def test_another_plan_in_the_same_folder_is_refused(tmp_path, toml):
    assert invoke("benchmark", toml, "--out", tmp_path / "out").exit_code == 0
    result = invoke("benchmark", changed(toml, "epsilon = 0.2", "epsilon = 0.3"), "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "settings.plan.methods.FGSM.epsilon is 0.2 there and 0.3 here" in result.stderr


def test_an_unknown_benchmark_names_the_bundled_ones(tmp_path):
    result = invoke("benchmark", "imagenet", "--out", tmp_path)
    assert result.exit_code == 2
    assert "'imagenet'" in result.stderr
    assert "mnist-saliency" in result.stderr


@pytest.mark.parametrize(("name", "length", "of_ten"), [("demo", 200, 2), ("mnist", 100, 1), ("paper", 100, 1)])
def test_the_bundled_ones_are_complete(name, length, of_ten, tmp_path):
    plan = read_plan(name)
    assert plan.length == length
    write_mnist(tmp_path, train=20, test=30)
    assert read_plan(name, root=tmp_path).length == 3 * of_ten


@pytest.mark.parametrize("name", bundled())
def test_a_bundled_plan_names_methods_and_metrics_that_there_are(name):
    table, _ = read_table(name)
    methods = {entry.get("method", label) for label, entry in table["methods"].items()}
    assert methods <= {*BOUNDS, *SALIENCY, *COUNTERFACTUALS}
    assert {entry.get("metric", label) for label, entry in table["metrics"].items()} <= {*METRICS, *CAPTUM}


def test_the_bundled_saliency_plan_names_what_there_is():
    assert "mnist-saliency" in bundled()
    directions = read_plan("mnist-saliency").directions()
    assert directions == {"deletion": "lower", "insertion": "higher", "infidelity": "lower", "sensitivity": "lower"}


def test_the_bundled_table_has_every_counterfactual_method_but_the_weakest_attack():
    text = PLANS.joinpath("mnist.toml").read_text(encoding="utf-8")
    assert {name for name in COUNTERFACTUALS if f'"{name}"' not in text} == {"FGSM"}


def test_expected_and_published_are_of_methods_and_metrics_that_the_plan_has():
    plan = read_plan("paper")
    methods = {method.name for method in plan.methods}
    assert set(plan.published) <= set(plan.metrics)
    assert {name for row in plan.published.values() for name in row} <= methods
    assert len(plan.expected) == 13
    for one in plan.expected:
        assert one.metric in plan.metrics
        assert {one.greater, one.smaller} <= methods


def test_a_value_is_reached_without_a_confidence(toml):
    text = toml.read_text(encoding="utf-8").replace("reach = 1", "shift = 0.5").replace("confidences = [0.05]\n", "")
    toml.write_text(text.replace("[methods.FGSM]\nepsilon = 0.2\n", ""), encoding="utf-8")
    plan = read_plan(toml)
    assert {method.confidence for method in plan.methods} == {None}
    assert plan.goal(torch.tensor([1])).value.tolist() == [1.5]


def test_the_mnist_set_is_recognised_by_its_pixels(tmp_path):
    write_mnist(tmp_path / "a", train=20, test=30)
    write_mnist(tmp_path / "b", train=20, test=30)
    raw = tmp_path / "b" / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    content = raw.read_bytes()
    first, again, other = (
        open_data({"source": "mnist"}, tmp_path, tmp_path / name, None).fingerprint for name in ("a", "a", "b")
    )
    assert first == again
    raw.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert open_data({"source": "mnist"}, tmp_path, tmp_path / "b", None).fingerprint != other


def test_references_are_spread_over_all_classes(tmp_path):
    data = open_data({"source": "mnist", "max_references": 20}, tmp_path, None, None)
    images, labels = data.references()
    assert images.shape == (20, 1, 28, 28)
    assert labels.bincount().tolist() == [2] * 10


def test_a_split_of_a_folder_brings_its_references(tmp_path):
    for split, count in (("train", 2), ("test", 1)):
        for number in range(count):
            folder = tmp_path / "photos" / split / "0"
            folder.mkdir(parents=True, exist_ok=True)
            write_image(torch.rand(1, 8, 8), folder / f"{number}.png")
    data = open_data({"source": "folder", "root": "photos", "split": "test"}, tmp_path, None, (1, 8, 8))
    assert (len(data.images), len(data.references()[0])) == (1, 2)


def test_a_folder_without_references_says_so_when_they_are_needed(toml):
    plan = read_plan(changed(toml, 'references = "reference"\n', ""))
    with pytest.raises(ValueError, match="references = "):
        plan.metrics["neighbor_agreement"].references()


def test_weights_of_another_folder_are_named_by_their_path(tmp_path, toml):
    shutil.copytree(tmp_path / "weights", tmp_path / "elsewhere" / "trained")
    text = toml.read_text(encoding="utf-8").replace('model = "toy-cnn"', 'model = "elsewhere/trained/toy-cnn"')
    toml.write_text(text, encoding="utf-8")
    plan = read_plan(toml)
    assert set(plan.settings["weights"]) == {"elsewhere/trained/toy-cnn", "toy-ae"}
    assert isinstance(plan.model, ConvClassifier)
    missing = changed(toml, "elsewhere/trained/toy-cnn", "elsewhere/toy-cnn")
    with pytest.raises(FileNotFoundError, match="no model 'toy-cnn' in"):
        read_plan(missing)


def test_another_root_than_that_of_the_plan_is_refused(tmp_path, toml):
    with pytest.raises(ValueError, match=r"'images'.*another root"):
        read_plan(toml, root=tmp_path)
