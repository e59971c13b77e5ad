r"""Fista: exact zeros, iterates of the definition, the search for c."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from plane import Counting, at, first_coordinate, plane, problem, run, two_logits
from torch import Tensor

from captum_dcf.search import AtLeast, Evaluation, Problem, ReachClass, Status
from captum_dcf.search.fista import Fista, elastic_net, soft_threshold
from captum_dcf.search.searcher import State
from captum_dcf.search.term import SquaredDistance

FISTA = Fista(beta=0.1, lr=0.2, iterations=7, runs=1, c=1.0)


def test_the_soft_threshold_leaves_exact_zeros():
    change = torch.tensor([-0.5, -0.1, -0.05, 0.0, 0.05, 0.1, 0.3])
    torch.testing.assert_close(soft_threshold(change, 0.1), torch.tensor([-0.4, 0, 0, 0, 0, 0, 0.2]))
    assert (soft_threshold(change, 0.1)[1:6] == 0).all()


def test_the_elastic_net():
    change = torch.tensor([[[0.5, -2.0]], [[0.0, 1.0]]])
    torch.testing.assert_close(elastic_net(change, 0.1), torch.tensor([0.25 + 4.25, 1.1]))


def _sum_of_squares(goal: Tensor):
    """A term that pulls towards a point, in place of a model's loss."""
    return lambda images, points, rows: ((images - goal).square().sum(1), None)


def _unreachable(points: Tensor, rows: Tensor) -> Tensor:
    return 0 * points[:, 0]


@pytest.mark.parametrize("lr", [0.2, 0.01])
def test_iterates_are_those_of_the_definition(lr: float):
    searcher = replace(FISTA, lr=lr, beta=lr / 4)
    start, goal = torch.tensor([[0.2, 0.5, 0.9]]), torch.tensor([[3.0, 0.5, -4.0]])
    asked = {"predict": _unreachable, "goal": AtLeast(9.0), "terms": (_sum_of_squares(goal),), "data_range": (0.0, 1.0)}
    result = run(start, searcher=searcher, keep_path=True, **asked)
    x, y = start, start
    for k in range(searcher.iterations):
        moved = y - lr * (1 - k / searcher.iterations) ** 0.5 * 2 * (y - goal) - start
        shrunk = torch.where(moved.abs() > searcher.beta, moved - searcher.beta * moved.sign(), 0 * moved)
        following = (start + shrunk).clamp(0, 1)
        x, y = following, (following + k / (k + 3) * (following - x)).clamp(0, 1)
        torch.testing.assert_close(result.path[0][k + 1], x[0])
    assert result.steps.tolist() == [searcher.iterations]
    assert result.path[0][-1][1] == start[0, 1]


def test_each_step_costs_a_decode_with_a_gradient_and_one_to_judge():
    decode = Counting(plane)
    result = run(at(-9.0), decode, searcher=FISTA, max_steps=50)
    assert decode.examples == 1 + 2 * result.steps.item()


def test_examples_end_each_for_its_own_reason():
    # The first moves on, the second has a slope below the threshold, the third leads where the output is not a number.
    def predict(points: Tensor, rows: Tensor) -> Tensor:
        slopes = torch.tensor([5.0, 0.1, 5.0])[rows]
        return torch.where((rows == 2) & (points[:, 0] != 0), torch.nan, slopes * points.sum(1))

    result = run(torch.zeros(3, 2), predict=predict, goal=AtLeast(99.0), searcher=replace(FISTA, lr=0.1, iterations=4))
    assert result.steps.tolist() == [4, 1, 2]
    assert result.statuses() == [Status.STEP_LIMIT, Status.STALLED, Status.NOT_FINITE]


class Recording(Fista):
    """Writes down the c of each iteration of the first example."""

    def _iterate(self, problem: Problem, rows: Tensor, state: State) -> tuple[Tensor, State]:
        if 0 in rows.tolist():
            self.seen.append(state["c"][rows == 0].item())
        return super()._iterate(problem, rows, state)


def _each_c(start: Tensor, runs: int, c: float) -> list[float]:
    searcher = Recording(beta=1e-3, lr=0.05, iterations=3, runs=runs, c=c)
    object.__setattr__(searcher, "seen", [])
    result = run(start, predict=first_coordinate, goal=AtLeast(1.0), searcher=searcher, max_steps=500)
    assert (result.steps <= 3 * runs).all()
    return searcher.seen[::3]


def test_c_grows_tenfold_until_a_run_finds_something_then_is_bisected():
    # In three iterations the way is some 3 c lr: c = 0.1 and 1 are too little, 10 is enough.
    seen = _each_c(at(0.0), 7, 0.1)
    assert seen[:4] == pytest.approx([0.1, 1.0, 10.0, 5.5])
    low, high = 0.0, float("inf")
    for c, following in pairwise(seen):
        low, high = (low, c) if following < c else (c, high)
        assert following == pytest.approx((low + high) / 2 if high < float("inf") else 10 * c)
    # Both ways: a run that finds nothing raises c again.
    changes = [following > c for c, following in pairwise(seen[3:])]
    assert any(changes)
    assert not all(changes)


def test_the_first_run_may_find_something():
    assert _each_c(at(0.0), 4, 20.0)[:3] == pytest.approx([20.0, 10.0, 5.0])


def test_each_example_has_its_own_c():
    both, alone = _each_c(at(0.0, -100.0), 6, 0.1), _each_c(at(0.0), 6, 0.1)
    assert both == pytest.approx(alone)


def test_a_run_begins_at_the_start_with_nothing_remembered():
    searcher = Fista(beta=0.01, lr=0.1, iterations=4, runs=3, c=1.0)
    one = run(at(-900.0), searcher=replace(searcher, runs=1), keep_path=True)
    three = run(at(-900.0), searcher=searcher, keep_path=True)
    assert three.steps.tolist() == [12]
    torch.testing.assert_close(three.path[0][:5], one.path[0])
    # With ten times c the first step of a run is ten times as long, but for the threshold.
    first = [three.path[0][1 + 4 * run] - three.path[0][0] for run in range(3)]
    for run_number, moved in enumerate(first):
        torch.testing.assert_close(moved[0], torch.tensor(0.5 * 10**run_number - 0.01), rtol=1e-3, atol=1e-3)


def test_of_all_that_reach_the_goal_the_one_with_the_least_elastic_net_is_kept():
    start = at(-0.5)
    searcher = Fista(beta=0.01, lr=0.1, iterations=10, runs=6, c=1.0)
    result = run(start, searcher=searcher, terms=(SquaredDistance(start),), keep_path=True, max_steps=500)
    path = result.path[0]
    reached = (
        ReachClass(1, 0.9).judge(two_logits(path, torch.zeros(0)), torch.zeros(len(path), dtype=torch.int64)).reached
    )
    nets = elastic_net(path - start, 0.01)
    assert reached.sum() > 3
    torch.testing.assert_close(result.counterfactuals[0], path[reached][nets[reached].argmin()])
    assert len(nets[reached].unique()) > 1


def test_coordinates_that_need_no_change_keep_it_exactly():
    start = torch.tensor([[-0.2, 0.25, 0.7]])
    result = run(start, searcher=Fista(beta=0.05, lr=0.1, iterations=20, runs=4, c=1.0), max_steps=500)
    assert result.reached.all()
    assert (result.attributions[0] != 0).tolist() == [True, False, False]


def test_a_candidate_is_put_within_the_range():
    result = run(at(-0.9), searcher=Fista(beta=0.01, lr=5.0, iterations=5, runs=1, c=1.0), data_range=(-1.0, 0.5))
    assert result.end_latents[0, 0] == 0.5


def test_what_ended_a_run_is_known_of_each_evaluation():
    asked = problem(at(-9.0))
    first: Evaluation = asked.evaluate(at(-9.0), torch.tensor([0]))
    move = FISTA.step(asked, first, FISTA.start(asked, first))
    assert move.state["k"].item() == 1
    assert move.state["reason"].item() == Status.STEP_LIMIT


def test_a_run_that_would_stay_at_the_start_ends_at_once_also_after_one_that_moved():
    # With c = 1.2 a first step of 0.12 is 0.02 beyond the threshold, which is found; with half of c it is below.
    searcher = Fista(beta=0.1, lr=0.1, iterations=2, runs=2, c=1.2)
    result = run(at(0.0), predict=first_coordinate, goal=AtLeast(0.01), searcher=searcher)
    assert result.statuses() == [Status.FOUND]
    assert result.steps.tolist() == [2 + 1]


def test_a_run_that_comes_back_to_the_start_goes_on_while_it_has_momentum():
    # Steps get shorter from iteration to iteration; the fifth falls below the threshold, with momentum left.
    searcher = Fista(beta=0.1, lr=0.1, iterations=6, runs=1, c=1.2)
    result = run(at(0.0), predict=first_coordinate, goal=AtLeast(9.0), searcher=searcher, keep_path=True)
    path = result.path[0][:, 0]
    assert (path[1:5] > 0).all()
    assert (path[5:] == 0).all()
    assert result.steps.tolist() == [6]
    assert result.statuses() == [Status.STEP_LIMIT]


def test_an_infinite_gradient_ends_a_run():
    def steep(points: Tensor, rows: Tensor) -> Tensor:
        return two_logits(points - 1 + (points - points.detach()).sqrt(), rows)

    result = run(at(-1.0), predict=steep, searcher=FISTA)
    assert result.statuses() == [Status.NOT_FINITE]
    assert result.steps.tolist() == [1]
    assert torch.equal(result.counterfactuals, at(-1.0))
