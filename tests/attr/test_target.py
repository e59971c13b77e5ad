r"""Every form of ``target``: the class to reach, once per example."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import images

from captum_dcf import AtLeast, DiffeomorphicCounterfactual, Generator, ReachClass

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("target", "each"),
    [
        (2, [2, 2, 2]),
        (np.int64(2), [2, 2, 2]),
        (torch.tensor(2), [2, 2, 2]),
        (torch.tensor([2]), [2, 2, 2]),
        (torch.tensor(2, dtype=torch.int32), [2, 2, 2]),
        (torch.tensor(2, dtype=torch.uint8), [2, 2, 2]),
        ((2,), [2, 2, 2]),
        ([2, 1, 0], [2, 1, 0]),
        ([np.int64(2), torch.tensor(1), 0], [2, 1, 0]),
        ([(2,), (1,), (0,)], [2, 1, 0]),
        (torch.tensor([2, 1, 0]), [2, 1, 0]),
        (torch.tensor([2, 1, 0], dtype=torch.int16), [2, 1, 0]),
    ],
)
def test_every_form_of_target_means_a_class_for_each(method: DiffeomorphicCounterfactual, target: Any, each: list[int]):
    x = images(3)
    result = method.counterfactual(x, target)
    assert result.reached.all()
    assert method.forward_func(result.counterfactuals).argmax(1).tolist() == each
    assert torch.equal(result.attributions, method.attribute(x, goal=ReachClass(torch.tensor(each))))


def per_place(x: Tensor) -> Tensor:
    # (N, 3 classes, 4 columns): each column of the image judged for itself.
    return 10 * x[:, 0, :3]


@pytest.mark.parametrize(
    ("target", "each"),
    [((1, 3), [(1, 3), (1, 3)]), ([(1, 3), (0, 2)], [(1, 3), (0, 2)]), ([(1, -1), (0, 2)], [(1, 3), (0, 2)])],
)
def test_a_tuple_names_class_and_place(generator: Generator, target: Any, each: list[tuple[int, int]]):
    result = DiffeomorphicCounterfactual(per_place, generator).counterfactual(images(2), target)
    assert result.reached.all()
    probabilities = per_place(result.counterfactuals).softmax(1)
    for row, (label, place) in enumerate(each):
        assert probabilities[row, label, place] > 0.99
        torch.testing.assert_close(probabilities[row, label, place], result.end_scores[row])


def test_with_a_goal_the_target_names_the_output_as_captum_does(method: DiffeomorphicCounterfactual):
    result = method.counterfactual(images(3), target=[0, 1, 2], goal=AtLeast(7.0))
    assert result.reached.all()
    values = method.forward_func(result.counterfactuals)[torch.arange(3), torch.arange(3)]
    assert (values >= 7).all()
    torch.testing.assert_close(values - 7, result.end_scores)


def test_with_a_goal_a_tuple_names_one_of_many_values(generator: Generator):
    method = DiffeomorphicCounterfactual(per_place, generator)
    result = method.counterfactual(images(2), target=[(0, 1), (2, 3)], goal=AtLeast(8.0))
    assert result.reached.all()
    outputs = per_place(result.counterfactuals)
    torch.testing.assert_close(torch.stack((outputs[0, 0, 1], outputs[1, 2, 3])) - 8, result.end_scores)


@pytest.mark.parametrize(
    ("target", "error", "says"),
    [
        (True, TypeError, "True .bool.*an int"),
        (1.0, TypeError, "1.0 .float.*an int"),
        ("9", TypeError, "'9' .str.*an int"),
        ([0, True, 1], TypeError, "True .bool"),
        ([0, torch.tensor(True), 1], TypeError, r"tensor\(True\)"),
        ([0, np.bool_(True), 1], TypeError, "True"),
        ([0, 1.5, 1], TypeError, "1.5 .float"),
        ((), TypeError, "an int"),
        ({0, 1}, TypeError, "set"),
        (np.array([0, 1, 2]), TypeError, "ndarray"),
        (torch.tensor([0.0, 1.0, 2.0]), TypeError, "float32.*an int"),
        (torch.tensor([True, False, True]), TypeError, "torch.bool.*an int"),
        (torch.zeros(3, 1, dtype=torch.int64), ValueError, r"\(3, 1\)"),
        ([0, 1], ValueError, "2 entries for 3 examples"),
        ([1], ValueError, "1 entries for 3 examples"),
        ([], ValueError, "0 entries for 3 examples"),
        (torch.tensor([0, 1]), ValueError, "2 entries for 3 examples"),
        (torch.zeros(0, dtype=torch.int64), ValueError, "0 entries for 3 examples"),
        ([0, (1, 2), 1], ValueError, "one length"),
        ((1, 2), ValueError, r", 3\) needs targets of 1"),
        (3, ValueError, "class 3 .* 0 to 2"),
        (-1, ValueError, "class -1 .* 0 to 2"),
        (2**70, ValueError, "out of range"),
        ([0, 1, 3], ValueError, "class 3 .* 0 to 2"),
        (torch.tensor([0, 1, 3]), ValueError, "class 3 .* 0 to 2"),
        (None, ValueError, "target=.*goal="),
    ],
)
@pytest.mark.parametrize("internal_batch_size", [None, 1])
def test_a_wrong_target_is_named(
    method: DiffeomorphicCounterfactual,
    target: Any,
    error: type[Exception],
    says: str,
    internal_batch_size: int | None,
):
    with pytest.raises(error, match=says):
        method.attribute(images(3), target, internal_batch_size=internal_batch_size)


@pytest.mark.parametrize("target", [(1, 4), (1, -5), [(0, 0), (0, 9)]])
def test_a_place_out_of_range_is_named(generator: Generator, target: Any):
    with pytest.raises(ValueError, match=r"out of range.*\(2, 3, 4\)"):
        DiffeomorphicCounterfactual(per_place, generator).attribute(images(2), target)


@pytest.mark.parametrize("target", [3, -4, [0, 7]])
def test_an_output_out_of_range_is_named(method: DiffeomorphicCounterfactual, target: Any):
    with pytest.raises(ValueError, match=r"out of range.*\(2, 3\)"):
        method.attribute(images(2), target, goal=AtLeast(1.0))


@pytest.mark.parametrize("internal_batch_size", [None, 1, 2])
@pytest.mark.parametrize("length", [2, 4])
def test_a_goal_of_another_number_of_examples_is_refused(
    method: DiffeomorphicCounterfactual, internal_batch_size: int | None, length: int
):
    # Longer ones too: the first labels of a batch twice as large would fit by accident.
    for goal in (ReachClass(torch.ones(length, dtype=torch.int64)), AtLeast(torch.ones(length))):
        with pytest.raises(ValueError, match=rf"\({length},\) for 3 examples"):
            method.attribute(images(3), target=0, goal=goal, internal_batch_size=internal_batch_size)


def test_a_goal_may_hold_a_tensor_without_dimensions(method: DiffeomorphicCounterfactual):
    one = method.attribute(images(3), goal=ReachClass(torch.tensor(1)))
    assert torch.equal(one, method.attribute(images(3), target=1))
    value = method.counterfactual(images(3), target=1, goal=AtLeast(torch.tensor(7.0)), internal_batch_size=2)
    assert value.reached.all()
