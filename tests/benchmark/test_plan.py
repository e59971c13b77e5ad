from __future__ import annotations

import pytest
import torch
from torch.utils.data import IterableDataset, TensorDataset
from toys import RowClassifier

from captum_dcf import DiffeomorphicCounterfactual, Pixels, ReachClass
from captum_dcf.benchmark import Method, Plan, counterfactual_methods, reach

IMAGES = TensorDataset(torch.rand(3, 1, 4, 4), torch.zeros(3).long())


class Endless(IterableDataset):
    def __iter__(self):
        return iter(IMAGES)


def same(x, t):
    return x


def plan(**changed):
    arguments = {"images": IMAGES, "model": same, "goal": reach(1), "methods": [Method("m", same)], "metrics": {}}
    return Plan(**{**arguments, **changed})


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"methods": []}, ValueError, "at least one method"),
        ({"methods": [same]}, TypeError, "function"),
        ({"methods": [Method("m", "Revise")]}, TypeError, "'m' must be callable, received str"),
        ({"methods": [Method("m", same), Method("m", same)]}, ValueError, r"two of \('m', '', None\)"),
        ({"methods": [Method(3, same)]}, TypeError, r"names.*\(3, '', None\)"),
        (
            {"methods": [Method("m", same, confidence=float("nan"))]},
            ValueError,
            "between 0 and 1, received nan for 'm'",
        ),
        ({"methods": [Method("m", same, confidence=1)]}, ValueError, "between 0 and 1, received 1 for 'm'"),
        ({"metrics": {3: same}}, TypeError, "names.*received 3"),
        ({"metrics": {"ssim": "ssim"}}, TypeError, "'ssim' must be callable, received str"),
        ({"metrics": {"seconds": same}}, ValueError, "seconds: the table has such a column"),
        ({"images": TensorDataset(torch.rand(0, 1))}, ValueError, "empty dataset"),
        ({"images": Endless()}, TypeError, "map-style"),
        ({"shard_size": 0}, ValueError, "shard_size must be at least 1, received 0"),
        ({"goal": 9}, TypeError, "function of labels.*received 9"),
        ({"goal": lambda labels: labels}, TypeError, "Goal, received Tensor"),
        ({"seed": True}, TypeError, "seed must be an int, received bool"),
    ],
)
def test_a_mistake_is_named(changed, error, says):
    with pytest.raises(error, match=says):
        plan(**changed)


def test_methods_of_one_name_may_differ_in_confidence():
    methods = [Method("m", same, confidence=0.5), Method("m", same, confidence=0.99)]
    assert plan(methods=methods).described()["methods"] == [["m", "", 0.5], ["m", "", 0.99]]


def test_shards_cover_all_images_once():
    shards = plan(shard_size=2).shards()
    assert shards == {0: range(0, 2), 1: range(2, 3)}


def test_every_method_meets_every_generator_and_confidence():
    pixels = Pixels((1, 4, 4))
    methods = counterfactual_methods(
        {"a": DiffeomorphicCounterfactual, "b": DiffeomorphicCounterfactual},
        RowClassifier(),
        {"one": pixels, "two": pixels},
        [0.4, 0.6],
        max_steps=3,
    )
    assert [method.key for method in methods] == [
        (name, generator, confidence) for name in "ab" for generator in ("one", "two") for confidence in (0.4, 0.6)
    ]
    result = methods[1].explain(torch.full((1, 1, 4, 4), 0.5), ReachClass(2, 0.6))
    assert result.steps.max() <= 3
