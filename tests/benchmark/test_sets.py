r"""Metrics of all counterfactuals of a method: one number, whatever the shards and whoever makes them."""

from __future__ import annotations

import csv

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from toys import images

from captum_dcf import metrics
from captum_dcf.benchmark import Method, Plan, SaliencyMap, reach, run
from captum_dcf.benchmark.binding import make_metric
from captum_dcf.benchmark.setup import Setup

X, REFERENCES = images(7), images(20, seed=4)


class Models:
    def load(self, name, is_generator=False):
        return {"features": nn.Flatten()}[name]


def brighter(x, goal):
    return x + 0.1


def plan_of(classifier, **others):
    setup = Setup(classifier, {}, [0.5], Models(), lambda: (REFERENCES, torch.zeros(20)))
    bound = make_metric(setup, "FID", "frechet_distance", {"network": "features"})
    methods = [
        Method("brighter", brighter),
        Method("same", lambda x, goal: x),
        Method("map", lambda x, goal: SaliencyMap(x, torch.zeros(len(x)).long())),
    ]
    arguments = {"images": TensorDataset(X, torch.zeros(7).long()), "methods": methods, "shard_size": 3}
    return Plan(model=classifier, goal=reach(2), metrics={"FID": bound}, **{**arguments, **others})


def summary(out):
    with (out / "summary.csv").open(encoding="utf-8", newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file) if row["metric"] == "FID"}


def test_it_is_of_all_images_and_none_of_a_saliency_map(tmp_path, classifier):
    out = run(plan_of(classifier), tmp_path)
    found = summary(out)
    expected = {
        name: metrics.frechet_distance(nn.Flatten(), x, REFERENCES) for name, x in (("brighter", X + 0.1), ("same", X))
    }
    assert {name: float(row["mean"]) for name, row in found.items()} == pytest.approx(expected, rel=1e-4)
    assert {row["over"] for row in found.values()} == {"set"}
    text = (out / "report.md").read_text(encoding="utf-8")
    assert " FID ↓ |" in text
    with (out / "table.csv").open(encoding="utf-8", newline="") as file:
        assert "FID" not in next(csv.reader(file))


def test_a_run_that_goes_on_has_the_images_of_the_finished_shards(tmp_path, classifier):
    whole = summary(run(plan_of(classifier), tmp_path / "whole"))
    out = run(plan_of(classifier), tmp_path / "stopped")
    (out / "shards" / "00000001.jsonl").unlink()
    # Without its images a shard is made again.
    (out / "shards" / "00000002.safetensors").unlink()
    again = summary(run(plan_of(classifier), out))
    for name, row in whole.items():
        assert float(again[name]["mean"]) == pytest.approx(float(row["mean"]), rel=1e-5)


def test_images_that_a_method_fails_on_are_left_out(tmp_path, classifier):
    def picky(x, goal):
        if any(torch.equal(image, X[4]) for image in x):
            raise RuntimeError("not this one")
        return brighter(x, goal)

    found = summary(run(plan_of(classifier, methods=[Method("picky", picky)]), tmp_path))
    others = torch.cat((X[:4], X[5:])) + 0.1
    expected = metrics.frechet_distance(nn.Flatten(), others, REFERENCES)
    assert float(found["picky"]["mean"]) == pytest.approx(expected, rel=1e-4)
    assert found["picky"]["count"] == "6"


def test_without_such_a_metric_no_images_are_kept(tmp_path, classifier):
    out = run(plan_of(classifier, **{"methods": [Method("same", lambda x, goal: x)]}), tmp_path / "with")
    assert list(out.rglob("*.safetensors"))
    plan = Plan(TensorDataset(X, torch.zeros(7).long()), classifier, reach(2), [Method("same", brighter)], {})
    assert not list(run(plan, tmp_path / "without").rglob("*.safetensors"))
