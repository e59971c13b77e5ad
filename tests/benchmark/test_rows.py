from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset
from toys import images

from captum_dcf import AdversarialExample, DiffeomorphicCounterfactual
from captum_dcf.benchmark import (
    Method,
    NotApplicable,
    Plan,
    SaliencyMap,
    counterfactual_methods,
    leave,
    reach,
    run,
    saliency_method,
    shift,
    summarize,
)
from captum_dcf.benchmark.shards import ShardFolder
from captum_dcf.metrics import l2_input, l2_latent_encoded


def brighter(images, targets):
    return images + 0.1


def mean(case):
    return case.counterfactuals.flatten(1).mean(1)


def l2(case):
    return l2_input(case.inputs, case.counterfactuals)


def table(out):
    with (out / "table.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def plan_of(dataset, classifier, methods, metrics=None, **others):
    return Plan(dataset, classifier, reach(2), methods, metrics or {}, **others)


@pytest.fixture
def dataset(classifier):
    x = images(6)
    return TensorDataset(x, classifier(x).argmax(1))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)).eval()


class Damaged(Dataset):
    """Images of which some cannot be read, some are NaN and some have another shape."""

    def __len__(self):
        return 9

    def __getitem__(self, index):
        if index == 1:
            raise OSError("image file is truncated")
        if index == 4:
            return torch.full((1, 4, 4), float("nan")), 0
        if index == 5:
            return torch.full((1, 5, 5), 0.5), 0
        return images(9)[index], 0


def test_a_row_says_what_the_method_itself_says(tmp_path, dataset, classifier, generator):
    methods = counterfactual_methods(
        {
            "ours": DiffeomorphicCounterfactual,
            "X": lambda model, generator: AdversarialExample(model, generator.data_range),
        },
        classifier,
        {"rotated": generator},
        confidences=[0.5, 0.8],
    )
    metrics = {
        "l2": lambda case: l2_input(case.inputs, case.counterfactuals),
        "latent": lambda case: l2_latent_encoded(generator, case.inputs, case.counterfactuals),
    }
    rows = table(run(plan_of(dataset, classifier, methods, metrics, shard_size=4), tmp_path / "out"))
    assert len(rows) == 6 * 2 * 2
    result = DiffeomorphicCounterfactual(classifier, generator).counterfactual(dataset.tensors[0], 2, confidence=0.8)
    mine = [row for row in rows if row["method"] == "ours" and row["confidence"] == "0.8"]
    assert [int(row["image"]) for row in mine] == list(range(6))
    assert [int(row["label"]) for row in mine] == dataset.tensors[1].tolist()
    assert {row["generator"] for row in mine} == {"rotated"}
    assert [row["status"] for row in mine] == [status.name for status in result.statuses()]
    assert [row["found"] for row in mine] == [str(found) for found in result.reached.tolist()]
    assert [int(row["steps"]) for row in mine] == result.steps.tolist()
    distances = torch.tensor([float(row["l2"]) for row in mine])
    torch.testing.assert_close(distances, l2_input(result.inputs, result.counterfactuals))
    # The generator is orthogonal.
    torch.testing.assert_close(torch.tensor([float(row["latent"]) for row in mine]), distances, rtol=1e-3, atol=1e-5)
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert {row["error"] for row in rows} == {""}


def test_what_is_of_the_class_already_is_not_found(tmp_path, classifier, generator):
    x = images(4)
    x[1, 0, 2] = 1.0
    [ours] = counterfactual_methods({"ours": DiffeomorphicCounterfactual}, classifier, {"rotated": generator}, [0.6])
    last_row = Method("last row", lambda x, t: x + 0.5 * torch.eye(4)[2][:, None], confidence=0.6)
    saliency = Method("map", lambda x, t: SaliencyMap(x, torch.zeros(len(x)).long()))
    methods = [ours, Method("nothing", lambda x, t: x, confidence=0.6), last_row, saliency]
    plan = plan_of(TensorDataset(x, torch.zeros(4).long()), classifier, methods, {"l2": l2}, shard_size=3)
    out = run(plan, tmp_path / "out")
    rows = table(out)

    def column(name):
        return {method.name: [row[name] for row in rows if row["method"] == method.name] for method in methods}

    there, others = ["False", "True", "False", "False"], ["True", "False", "True", "True"]
    assert column("already_there") == {"ours": there, "nothing": there, "last row": there, "map": [""] * 4}
    assert column("found") == {"ours": others, "nothing": ["False"] * 4, "last row": others, "map": [""] * 4}
    summaries = {one.method: one for one in summarize(ShardFolder(out).rows(plan.shards()), ["l2"])}
    assert {name: (one.already_there, one.found, one.sought) for name, one in summaries.items()} == {
        "ours": (1, 3, 3),
        "nothing": (1, 0, 3),
        "last row": (1, 3, 3),
        "map": (None, None, 4),
    }
    # Not the distance of 0 of the one that is there.
    assert summaries["last row"].all["l2"].count == 3
    assert re.search(r"last row .*\| 1 +\| 3/3 ", (out / "report.md").read_text(encoding="utf-8"))


def test_classes_have_names_in_the_table(tmp_path, classifier):
    methods, names = [Method("brighter", brighter)], {0: "cat", 1: "dog", 2: "owl"}
    dataset = TensorDataset(images(3), torch.tensor([0, 1, 7]))
    out = run(plan_of(dataset, classifier, methods, class_names=names), tmp_path / "out")
    rows = table(out)
    assert [row["label"] for row in rows] == ["cat", "dog", "7"]
    assert {row["target"] for row in rows} == {"owl"}
    parquet = pytest.importorskip("pyarrow.parquet").read_table(out / "table.parquet").to_pydict()
    assert parquet["label"] == ["cat", "dog", "7"]


def test_a_method_and_a_metric_are_callables(tmp_path, dataset, classifier):
    methods = [
        Method("brighter", brighter),
        Method("last row", lambda x, t: x + 0.5 * torch.eye(4)[2][:, None], confidence=0.6),
        Method("map", lambda x, t: SaliencyMap(x, torch.zeros(len(x)).long())),
    ]
    rows = table(run(plan_of(dataset, classifier, methods, {"mean": mean}), tmp_path / "out"))
    first, last, saliency = (rows[start : start + 6] for start in (0, 6, 12))
    for row, image in zip(first, dataset.tensors[0]):
        assert float(row["mean"]) == pytest.approx(float(image.mean()) + 0.1, abs=1e-6)
    # The third logit is ten times the mean of the third row.
    assert {row["found"] for row in last} == {"True"}
    # No counterfactual, so nothing to be found or measured.
    assert {row["found"] + row["mean"] + row["error"] for row in saliency} == {""}


def test_a_broken_image_is_a_row_with_an_error_and_the_others_are_done(tmp_path, classifier):
    asked = []

    def picky(x, t):
        asked.append(tuple(x.shape))
        if x.shape[-1] != 4:
            raise ValueError("images must be 4 wide")
        return brighter(x, t)

    methods = [Method("picky", picky), Method("same", lambda x, t: x)]
    plan = plan_of(Damaged(), lambda x: x.flatten(1)[:, :3], methods, {"mean": mean}, shard_size=3)
    out = run(plan, tmp_path / "out")
    rows = table(out)
    assert [(int(row["image"]), row["method"]) for row in rows] == [
        (image, method) for start in (0, 3, 6) for method in ("picky", "same") for image in range(start, start + 3)
    ]
    errors = {int(row["image"]): row["error"] for row in rows if row["error"] and row["method"] == "picky"}
    assert errors.keys() == {1, 4, 5}
    assert errors[1] == "the image cannot be read: OSError: image file is truncated"
    assert "NaN" in errors[4]
    assert errors[5] == "ValueError: images must be 4 wide"
    assert {int(row["image"]) for row in rows if row["error"] and row["method"] == "same"} == {1, 4}
    assert all(row["mean"] for row in rows if not row["error"])
    assert "image file is truncated (2 rows)" in (out / "report.md").read_text(encoding="utf-8")
    summary = (out / "summary.csv").read_text(encoding="utf-8")
    assert "picky,,,9,3," in summary


def test_one_image_that_a_method_fails_on_does_not_take_its_shard_with_it(tmp_path, dataset, classifier):
    bad = dataset.tensors[0][2]

    def superstitious(x, t):
        if any(torch.equal(image, bad) for image in x):
            raise RuntimeError("unlucky")
        return x

    rows = table(run(plan_of(dataset, classifier, [Method("m", superstitious)]), tmp_path / "out"))
    assert [row["error"] for row in rows] == ["", "", "RuntimeError: unlucky", "", "", ""]


@pytest.mark.parametrize("shard_size", [1, 2, 4, 6])
def test_what_fails_later_is_a_row_whatever_the_size_of_a_shard(tmp_path, dataset, classifier, shard_size):
    last = dataset.tensors[0][4:]

    def picky(x, t):
        if any(torch.equal(image, bad) for image in x for bad in last):
            raise RuntimeError("not this one")
        return x

    rows = table(run(plan_of(dataset, classifier, [Method("m", picky)], shard_size=shard_size), tmp_path / "out"))
    assert [row["error"] for row in rows] == [""] * 4 + ["RuntimeError: not this one"] * 2


def test_a_trial_of_one_image_tells_a_wrong_setting(tmp_path, dataset, classifier):
    one = TensorDataset(*(part[:1] for part in dataset.tensors))
    with pytest.raises(ValueError, match="method 'm' cannot do image 0: ZeroDivisionError"):
        run(plan_of(one, classifier, [Method("m", lambda x, t: 1 / 0)]), tmp_path / "out")


@pytest.mark.parametrize(
    ("method", "metric", "says"),
    [
        (lambda x, t: 1 / 0, mean, "method 'm'.*division by zero.*all 6 images"),
        (brighter, lambda case: case.nothing, "method 'm'.*the metric 'mean'.*nothing.*all 6 images"),
        (lambda x, t: None, mean, "method 'm' must give a Counterfactual.*received NoneType"),
        (lambda x, t: x[:, :, :2], mean, r"method 'm' must keep the shape \(6, 1, 4, 4\).*\(6, 1, 2, 4\)"),
        (brighter, lambda case: torch.zeros(2), r"metric 'mean' must give one value per example, \(6,\).*\(2,\)"),
    ],
)
def test_what_fails_on_every_image_ends_the_run(tmp_path, dataset, classifier, method, metric, says):
    with pytest.raises(ValueError, match=says):
        run(plan_of(dataset, classifier, [Method("m", method)], {"mean": metric}), tmp_path / "out")
    assert not list((tmp_path / "out" / "shards").iterdir())


def test_a_missing_extra_ends_the_run(tmp_path, dataset, classifier):
    def needs_more(case):
        raise ImportError('pip install "captum_dcf[metrics]"')

    with pytest.raises(ImportError, match="pip install"):
        run(plan_of(dataset, classifier, [Method("m", brighter)], {"mean": needs_more}), tmp_path / "out")


def test_a_metric_may_say_that_it_does_not_apply(tmp_path, dataset, classifier):
    def never(case):
        raise NotApplicable

    rows = table(run(plan_of(dataset, classifier, [Method("m", brighter)], {"never": never}), tmp_path / "out"))
    assert {row["never"] + row["error"] for row in rows} == {""}


@pytest.mark.parametrize("example", [(torch.zeros(1, 4, 4, dtype=torch.uint8), 0), ("picture.png", 0), torch.zeros(3)])
def test_a_dataset_of_something_else_is_refused(tmp_path, classifier, example):
    with pytest.raises(TypeError, match="example 0"):
        run(plan_of([example, example], classifier, [Method("m", brighter)]), tmp_path / "out")


def test_random_numbers_are_those_of_the_shard_and_the_callers_are_put_back(tmp_path, dataset, classifier):
    method = Method("noisy", lambda x, t: x + torch.rand_like(x))
    before = torch.random.get_rng_state()
    rows = [
        table(run(plan_of(dataset, classifier, [method], {"mean": mean}, shard_size=2, seed=seed), tmp_path / name))
        for seed, name in ((0, "first"), (0, "second"), (7, "third"))
    ]
    values = [[row["mean"] for row in part] for part in rows]
    assert values[0] == values[1] != values[2]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_random_numbers_of_numpy_are_those_of_the_shard_too(tmp_path, dataset, network):
    # Captum's GradientShap draws from them.
    metrics = {"strength": lambda case: case.attributions.flatten(1).abs().sum(1)}
    values = []
    for caller in (1, 2):
        np.random.seed(caller)
        before = np.random.get_state()[1].tolist()
        plan = plan_of(dataset, network, [saliency_method("GradientShap", network)], metrics)
        values.append([row["strength"] for row in table(run(plan, tmp_path / str(caller)))])
        assert np.random.get_state()[1].tolist() == before
    assert values[0] == values[1]
    assert float(values[0][0]) > 0


def test_a_data_set_of_one_image_that_cannot_be_read_is_a_row(tmp_path, classifier):
    class Unreadable(Damaged):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            raise OSError("image file is truncated")

    [row] = table(run(plan_of(Unreadable(), classifier, [Method("m", brighter)]), tmp_path / "out"))
    assert "image file is truncated" in row["error"]


def test_names_may_hold_any_character(tmp_path, dataset, classifier):
    rows = table(run(plan_of(dataset, classifier, [Method("a\u2028b\u0085", brighter)]), tmp_path / "out"))
    assert {row["method"] for row in rows} == {"a\u2028b\u0085"}


def test_shards_are_whole_lines_of_json(tmp_path, dataset, classifier):
    out = run(plan_of(dataset, classifier, [Method("m", brighter)], shard_size=4), tmp_path / "out")
    files = sorted((out / "shards").iterdir())
    assert [path.name for path in files] == ["00000000.jsonl", "00000001.jsonl"]
    assert [json.loads(line)["image"] for line in files[1].read_text(encoding="utf-8").splitlines()] == [4, 5]


def test_a_metric_or_a_method_that_writes_into_what_it_is_given_changes_nothing_of_the_others(tmp_path, classifier):
    x = images(4)

    def destroys(case):
        for tensor in (case.inputs, case.labels, case.target, case.counterfactuals, case.attributions):
            tensor.zero_()
        return torch.zeros(len(case.inputs))

    def wants_class_0(x, t):
        t.label.zero_()
        return x.mul_(1.5)

    metrics = {
        "destroys": destroys,
        "l2": lambda case: l2_input(case.inputs, case.counterfactuals),
        "aim": lambda case: case.target.float(),
        "given": lambda case: case.labels.float(),
    }
    methods = [Method("first", wants_class_0), Method("second", brighter)]
    dataset = TensorDataset(x.clone(), torch.ones(4).long())
    rows = table(run(plan_of(dataset, classifier, methods, metrics), tmp_path / "out"))
    assert torch.equal(dataset.tensors[0], x)
    first, second = rows[:4], rows[4:]
    torch.testing.assert_close(torch.tensor([float(row["l2"]) for row in first]), 0.5 * x.flatten(1).norm(dim=1))
    assert [float(row["l2"]) for row in second] == pytest.approx([0.4] * 4, abs=1e-5)
    assert {(row["aim"], row["given"]) for row in rows} == {("2.0", "1.0")}
    # The targets a method wrote are not those its counterfactuals are judged by.
    reached = (classifier(1.5 * x).argmax(1) == 2).tolist()
    assert [row["found"] for row in first] == [str(one) for one in reached]
    assert not all(reached)


def test_a_method_that_writes_into_the_goal_does_not_change_the_labels(tmp_path, classifier):
    def writes(x, goal):
        goal.label.fill_(1)
        return x

    x = images(4)
    labels = classifier(x).argmax(1)
    plan = Plan(TensorDataset(x, labels), classifier, leave(), [Method("writes", writes)], {})
    rows = table(run(plan, tmp_path / "out"))
    assert [int(row["label"]) for row in rows] == labels.tolist()
    # To leave a class names no class to reach, and x' = x has not left its own.
    assert {(row["target"], row["found"]) for row in rows} == {("", "False")}


def test_a_value_is_a_goal_of_each_example(tmp_path):
    # Dark, so that none has its value already.
    x, values = 0.01 * images(4), torch.tensor([0.5, 1.5, 2.5, 3.5])

    def model(x):
        return x.flatten(1).sum(1)

    wanted = {"wanted": lambda case: case.goal.value}
    methods = [
        Method("enough", lambda x, goal: x * (goal.value / model(x)).view(-1, 1, 1, 1) + 0.01),
        Method("same", lambda x, goal: torch.zeros_like(x)),
    ]
    rows = table(run(Plan(TensorDataset(x, values), model, shift(0.5), methods, wanted), tmp_path / "out"))
    assert [float(row["label"]) for row in rows] == [*values.tolist()] * 2
    assert [float(row["target"]) for row in rows] == [1.0, 2.0, 3.0, 4.0] * 2
    assert [float(row["wanted"]) for row in rows] == [1.0, 2.0, 3.0, 4.0] * 2
    assert [row["found"] for row in rows] == ["True"] * 4 + ["False"] * 4
    assert {row["confidence"] + row["error"] for row in rows} == {""}


@pytest.mark.parametrize("label", ["7", float("inf"), float("nan"), 2**70, True, None])
def test_a_label_that_is_none_is_refused_by_name(tmp_path, classifier, label):
    with pytest.raises(TypeError, match="example 0"):
        run(plan_of([(torch.zeros(1, 4, 4), label)], classifier, [Method("m", brighter)]), tmp_path / "out")
