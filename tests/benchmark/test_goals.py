from __future__ import annotations

import pytest
import torch

from captum_dcf import AtLeast, AtMost, LeaveClass, ReachClass
from captum_dcf.benchmark import at_least, at_most, leave, near, reach, shift
from captum_dcf.benchmark.goals import value_of, with_confidence
from captum_dcf.search import Near

LABELS = torch.tensor([1, 0, 2])
VALUES = torch.tensor([1.0, 0.0, 2.5])


@pytest.mark.parametrize(
    ("goal", "kind", "values"),
    [
        (reach(2)(LABELS), ReachClass, [2, 2, 2]),
        (leave()(LABELS), LeaveClass, None),
        (at_least(3)(VALUES), AtLeast, [3.0, 3.0, 3.0]),
        (at_most(0.5)(LABELS), AtMost, [0.5, 0.5, 0.5]),
        (near(0.5, 0.1)(VALUES), Near, [0.5, 0.5, 0.5]),
        (shift(0.5)(VALUES), AtLeast, [1.5, 0.5, 3.0]),
        (shift(-0.5)(VALUES), AtMost, [0.5, -0.5, 2.0]),
        (shift(1)(LABELS), AtLeast, [2.0, 1.0, 3.0]),
    ],
)
def test_goals_come_from_labels(goal, kind, values):
    assert type(goal) is kind
    assert values == (None if value_of(goal) is None else value_of(goal).tolist())


def test_to_leave_is_to_leave_ones_own_class():
    assert torch.equal(leave()(LABELS).label, LABELS)


def test_a_confidence_is_of_classes():
    assert with_confidence(reach(2)(LABELS), 0.7).confidence == 0.7
    assert with_confidence(leave()(LABELS), 0.7).confidence == 0.7
    near = Near(torch.tensor(1.0))
    assert with_confidence(near, None) is near
    with pytest.raises(ValueError, match=r"0.7 for Near"):
        with_confidence(near, 0.7)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_is_finite(value):
    for goal in (at_least, at_most, shift):
        with pytest.raises(ValueError, match="must be finite"):
            goal(value)


def test_the_tolerance_is_that_which_was_given():
    assert near(0.5, 0.1)(VALUES).tolerance == 0.1
    with pytest.raises(ValueError, match="received -1"):
        near(0.5, -1)
