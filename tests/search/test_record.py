r"""Record: which image of an example is kept, what a path holds."""

from __future__ import annotations

import pytest
import torch
from plane import MIXED, at, first_coordinate, mixed_decode, overflowing, problem, run
from torch import Tensor

from captum_dcf.search import AtLeast, Evaluation, Status, UnitGradient, Verdict
from captum_dcf.search.record import RUNNING, Record


def evaluation(x: list[float], reached: list[bool], finite: list[bool] | None = None, score=None) -> Evaluation:
    points = at(*x)
    flags = torch.tensor(reached), torch.tensor(finite or [True] * len(x))
    scores = points[:, 0] if score is None else torch.tensor(score)
    overshoot = torch.zeros(len(x))
    return Evaluation(
        torch.arange(len(x)), points, points.clone(), points[:, 0], scores, *flags, None, -scores, overshoot
    )


def begun(n: int, keep_path: bool = False) -> Record:
    r"""A record of ``n`` examples at zero, all of which are to be searched."""
    asked = problem(at(*[0.0] * n), predict=first_coordinate, goal=AtLeast(9.0))
    record, first = Record(asked, keep_path=keep_path), evaluation([0.0] * n, [False] * n)
    verdict = Verdict(first.score, first.score, first.reached)
    assert record.admit(first, first.output, verdict).all()
    record.begin_paths(first)
    return record


NO_DISTANCE = torch.zeros(4)


def test_a_higher_score_is_better_and_a_tie_keeps_the_earlier():
    record = begun(4)
    record.update(evaluation([1.0, 2.0, -1.0, 5.0], [False] * 4, score=[1.0, 0.0, -1.0, 0.5]), NO_DISTANCE)
    assert record.images[:, 0].tolist() == [1.0, 0.0, 0.0, 5.0]
    assert record.end_scores.tolist() == [1.0, 0.0, 0.0, 0.5]
    record.update(evaluation([6.0] * 4, [False] * 4, score=[1.0, 0.1, 0.0, 0.4]), NO_DISTANCE)
    assert record.points[:, 0].tolist() == [1.0, 6.0, 0.0, 5.0]
    assert record.steps.tolist() == [2] * 4


def test_what_is_not_finite_is_never_better():
    record = begun(4)
    record.update(evaluation([1.0] * 4, [False] * 4, [True, False, True, False]), NO_DISTANCE)
    assert record.images[:, 0].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert record.was_finite.tolist() == [True, False, True, False]


def test_one_that_reaches_the_goal_is_better_than_any_that_does_not():
    record = begun(4)
    record.update(evaluation([1.0] * 4, [True, False, True, False], score=[-5.0, 3.0, -5.0, 3.0]), NO_DISTANCE)
    record.update(evaluation([2.0] * 4, [False, True, False, True], score=[9.0, -9.0, 9.0, -9.0]), NO_DISTANCE)
    assert record.images[:, 0].tolist() == [1.0, 2.0, 1.0, 2.0]
    assert record.end_scores.tolist() == [-5.0, -9.0, -5.0, -9.0]
    assert record.reached.all()


def test_among_those_that_reach_it_the_nearer_is_better_and_a_tie_keeps_the_earlier():
    record, distance = begun(4), torch.tensor([1.0, 2.0, 3.0, 4.0])
    record.update(evaluation([1.0] * 4, [True] * 4), distance)
    record.update(evaluation([2.0] * 4, [True] * 4, score=[9.0] * 4), torch.tensor([1.0, 1.9, 3.1, 0.0]))
    assert record.images[:, 0].tolist() == [1.0, 2.0, 1.0, 2.0]
    torch.testing.assert_close(record.distances, torch.tensor([1.0, 1.9, 3.0, 0.0]))
    # One that is nearer but does not reach the goal changes nothing.
    record.update(evaluation([3.0] * 4, [False] * 4, score=[9.0] * 4), torch.zeros(4))
    assert record.images[:, 0].tolist() == [1.0, 2.0, 1.0, 2.0]


def test_the_last_one_that_did_not_reach_the_goal_is_remembered():
    record = begun(4)
    record.update(evaluation([1.0] * 4, [False, False, True, False], [True, False, True, True]), NO_DISTANCE)
    record.update(evaluation([2.0] * 4, [True, True, True, False]), NO_DISTANCE)
    assert record.before[:, 0].tolist() == [1.0, 0.0, 0.0, 2.0]


def test_who_has_something_reached_ends_as_found_but_for_lost_reconstructions():
    record = begun(4)
    record.unreconstructed[2:] = True
    record.update(evaluation([1.0] * 4, [True, False, True, False]), NO_DISTANCE)
    record.end(torch.arange(4), Status.TIME_LIMIT)
    lost = Status.NOT_RECONSTRUCTED
    assert record.status.tolist() == [Status.FOUND, Status.TIME_LIMIT, lost, lost]


def test_those_that_are_not_named_stay_as_they_are():
    record = begun(4)
    two = evaluation([1.0, 1.0], [True, False])
    two = Evaluation(torch.tensor([2, 0]), *[getattr(two, name) for name in list(vars(two))[1:]])
    record.update(two, torch.zeros(2))
    record.end_at_limit(two.rows)
    assert record.steps.tolist() == [1, 0, 1, 0]
    assert record.status.tolist() == [Status.STEP_LIMIT, RUNNING, Status.FOUND, RUNNING]
    assert record.images[:, 0].tolist() == [1.0, 0.0, 1.0, 0.0]


# Paths


@pytest.mark.parametrize("window", [None, 1])
def test_a_path_begins_with_the_reconstruction_and_ends_with_the_counterfactual(window: int | None):
    result = run(at(-1.0, 0.1, -0.3), lambda z: z + 0.1, keep_path=True, internal_batch_size=window)
    assert result.statuses() == [Status.FOUND] * 3
    for row, path in enumerate(result.path):
        assert len(path) == result.steps[row] + 1
        assert torch.equal(path[0], result.reconstructions[row])
        assert torch.equal(path[-1], result.counterfactuals[row])
    torch.testing.assert_close(result.path[0], at(-0.9, -0.4, 0.1, 0.6) + torch.tensor([0.0, 0.1]))
    assert run(at(-1.0)).path is None


def test_c33_only_those_that_searched_or_were_found_have_images():
    result = run(MIXED, mixed_decode, rule=UnitGradient(1.5), max_steps=9, keep_path=True)
    searched = {Status.FOUND, Status.STEP_LIMIT}
    assert [len(path) > 0 for path in result.path] == [status in searched for status in result.statuses()]
    for row, path in enumerate(result.path):
        if len(path):
            assert torch.equal(path[0], result.reconstructions[row])


def test_one_found_by_its_reconstruction_has_that_one_image():
    result = run(at(0.3), decode=lambda z: z + 1, keep_path=True)
    assert len(result.path[0]) == 1
    assert torch.equal(result.path[0], result.counterfactuals)


def test_a_path_where_no_one_searched_is_empty():
    result = run(at(2.0, 3.0), keep_path=True)
    assert [len(path) for path in result.path] == [0, 0]


def test_the_path_leaves_out_what_is_not_finite():
    result = run(at(-0.1), decode=overflowing, rule=UnitGradient(4.0), keep_path=True)
    assert result.path[0].isfinite().all()
    assert 1 < len(result.path[0]) < result.steps.item() + 1


def test_the_path_is_what_the_model_saw():
    result = run(at(-1.0), lambda z: 3 * z, data_range=(-0.7, 0.46), keep_path=True)
    assert result.path[0].min() == -0.7
    assert result.path[0].max() == result.counterfactuals.max() == 0.46


def test_c22_a_path_costs_what_it_holds():
    # One of 64 searches for 40 steps, the others are there after one.
    start = torch.full((64, 2000), 0.1)
    start[0] = -19.75

    def predict(points: Tensor, rows: Tensor) -> Tensor:
        return points[:, 0]

    result = run(start, predict=predict, goal=AtLeast(0.2), rule=UnitGradient(0.5), keep_path=True, max_steps=60)
    assert result.steps.sum() == 63 + 40
    assert len(result.frames) == 64 + 63 + 40
