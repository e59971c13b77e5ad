r"""The loop: how searches end, whom it lets in and when, its limits, the work it does."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from plane import MIXED, Counting, Walk, at, hill, mixed_decode, plane, run, two_logits
from torch import Tensor

from captum_dcf.search import AtLeast, Evaluation, Move, Problem, ReachClass, Status, UnitGradient, engine
from captum_dcf.search.searcher import State

# How searches end


def test_found_after_the_steps_it_takes():
    result = run(at(-1.0))
    assert result.statuses() == [Status.FOUND]
    assert result.reached.all()
    assert result.steps.tolist() == [3]
    torch.testing.assert_close(result.counterfactuals, at(0.5))
    torch.testing.assert_close(result.end_latents, at(0.5))
    torch.testing.assert_close(result.start_latents, at(-1.0))
    torch.testing.assert_close(result.start_scores, torch.tensor([-5.0]).sigmoid())
    torch.testing.assert_close(result.end_scores, torch.tensor([2.5]).sigmoid())


def test_already_there_keeps_the_input_and_takes_no_step():
    # Its reconstruction is another image, and would do as well.
    result = run(at(2.0), decode=lambda z: z + 1)
    assert result.statuses() == [Status.ALREADY_THERE]
    assert result.reached.all()
    assert result.steps.tolist() == [0]
    assert torch.equal(result.counterfactuals, at(2.0))
    assert torch.equal(result.attributions, torch.zeros(1, 2))


def test_found_without_a_step_where_the_reconstruction_reaches_the_goal():
    result = run(at(0.3), decode=lambda z: z + 1)
    assert result.statuses() == [Status.FOUND]
    assert result.steps.tolist() == [0]
    assert torch.equal(result.counterfactuals, at(0.3) + 1)


def test_the_step_limit():
    result = run(at(-1.0), max_steps=2)
    assert result.statuses() == [Status.STEP_LIMIT]
    assert not result.reached.any()
    assert result.steps.tolist() == [2]
    torch.testing.assert_close(result.counterfactuals, at(0.0))
    torch.testing.assert_close(result.end_scores, torch.tensor([0.5]))


def test_found_with_the_last_step_allowed():
    assert run(at(-1.0), max_steps=3).statuses() == [Status.FOUND]


def test_not_finite_where_no_candidate_before_the_step_limit_was():
    result = run(at(-1.0), decode=lambda z: torch.where(z[:, :1] > -1, torch.inf, z), max_steps=3)
    assert result.statuses() == [Status.NOT_FINITE]
    assert torch.equal(result.counterfactuals, at(-1.0))


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_not_finite_at_the_first_decode_gives_the_input_back(bad: float):
    result = run(at(-1.0), decode=lambda z: z * bad)
    assert result.statuses() == [Status.NOT_FINITE]
    assert result.steps.tolist() == [0]
    assert torch.equal(result.counterfactuals, at(-1.0))
    assert torch.equal(result.reconstructions, at(-1.0))
    torch.testing.assert_close(result.end_scores, result.start_scores)


def test_not_reconstructed_where_the_model_changes_its_mind():
    start = at(-0.1)
    result = run(start, decode=lambda z: -z)
    assert result.statuses() == [Status.NOT_RECONSTRUCTED]
    assert not result.reached.any()
    assert result.steps.tolist() == [0]
    assert torch.equal(result.counterfactuals, -start)
    assert torch.equal(result.reconstructions, -start)
    torch.testing.assert_close(result.end_scores, torch.tensor([0.5]).sigmoid())


def test_an_unreconstructed_one_is_searched_on_if_asked_and_remains_one():
    result = run(at(-0.1), decode=lambda z: -z, search_unreconstructed=True)
    assert result.statuses() == [Status.NOT_RECONSTRUCTED]
    assert result.steps.tolist() == [1]
    assert result.reached.all()
    assert result.end_scores > 0.9


def test_c8_a_reconstruction_that_changed_the_answer_may_reach_the_goal_and_says_so():
    result = run(at(-0.8), decode=lambda z: -z)
    assert result.statuses() == [Status.NOT_RECONSTRUCTED]
    assert result.reached.all()
    assert result.end_scores > 0.9
    assert torch.equal(result.counterfactuals, at(-0.8) * -1)


def test_a_value_goal_tells_a_lost_reconstruction_by_the_value():
    result = run(at(-0.1), decode=lambda z: -z, predict=lambda x, rows: x[:, 0], goal=AtLeast(0.0))
    assert result.statuses() == [Status.NOT_RECONSTRUCTED]


def test_r4_what_a_reconstruction_lost_of_a_value_is_in_the_result():
    result = run(at(-8.0), decode=lambda z: z / 2, predict=lambda x, rows: x[:, 0], goal=AtLeast(1.0), max_steps=1)
    assert result.start_scores.tolist() == [-9.0]
    assert result.reconstruction_scores.tolist() == [-5.0]


MIXED_ENDS = [
    Status.FOUND,
    Status.FOUND,
    Status.ALREADY_THERE,
    Status.NOT_RECONSTRUCTED,
    Status.NOT_FINITE,
    Status.FOUND,
    Status.STEP_LIMIT,
]


@pytest.mark.parametrize("window", [None, 1, 2, 3, "auto"])
def test_one_batch_can_end_in_many_ways(window: int | str | None):
    result = run(MIXED, mixed_decode, rule=UnitGradient(1.5), max_steps=9, internal_batch_size=window)
    assert result.statuses() == MIXED_ENDS


class Ends(Walk):
    r"""Walks, and after so many steps ends each example for a reason of its own."""

    stops_at_goal = False

    def step(self, problem: Problem, at: Evaluation, state: State) -> Move:
        move = super().step(problem, at, state)
        ended = torch.where(move.state["count"] > 3, int(Status.STALLED), -1)
        return Move(move.points, move.state, ended)


def test_whoever_has_found_something_is_found_whatever_ended_it():
    result = run(at(-1.2, -9.0), searcher=Ends())
    assert result.statuses() == [Status.FOUND, Status.STALLED]
    assert result.steps.tolist() == [3, 3]
    # The first one found is kept where the searcher says no distance.
    torch.testing.assert_close(result.end_latents, at(0.8, -6.0))


def test_a_searcher_that_goes_on_after_the_goal_ends_at_the_step_limit_as_found():
    result = run(at(-1.2), searcher=Ends(), max_steps=3)
    assert result.statuses() == [Status.FOUND]
    assert result.steps.tolist() == [3]


def test_a_tie_of_scores_keeps_the_earlier_image():
    def flat(points: Tensor, rows: Tensor) -> Tensor:
        return two_logits(points.clamp(-1.0, 0.0), rows)

    result = run(at(-2.5), predict=flat, searcher=Walk(), max_steps=6)
    # At -0.5 the score rises, and from 0.5 on it stays.
    torch.testing.assert_close(result.end_latents, at(0.5))


def test_the_best_on_the_way_is_returned():
    goal = ReachClass(1, 0.95)
    result = run(at(-1.3, -2.2), predict=hill, goal=goal, rule=UnitGradient(0.9), max_steps=7, keep_path=True)
    assert result.statuses() == [Status.STEP_LIMIT] * 2
    for row, path in enumerate(result.path):
        best, place = hill(path, path).softmax(1)[:, 1].max(0)
        torch.testing.assert_close(result.end_scores[row], best)
        torch.testing.assert_close(result.counterfactuals[row], path[place])
        # It jumps over the hill, so the last is not the best.
        assert place < len(path) - 1


def test_what_is_not_finite_is_not_the_best_however_sure_the_model():
    # Clamped, infinity is the brightest of all images.
    burst = run(at(0.1), decode=lambda z: torch.where(z[:, :1] > 0.3, torch.inf, z), data_range=(0.0, 1.0), max_steps=1)
    assert torch.equal(burst.counterfactuals, at(0.1))
    torch.testing.assert_close(burst.end_scores, torch.tensor([0.5]).sigmoid())


def test_neither_inputs_nor_latents_are_changed():
    start, latents = at(-1.0, 0.2), at(-1.0, 0.2)
    result = run(start, latents=latents, keep_path=True, refine=True)
    assert torch.equal(start, at(-1.0, 0.2))
    assert torch.equal(latents, at(-1.0, 0.2))
    assert not any(value.requires_grad for value in vars(result).values() if isinstance(value, Tensor))


def test_a_search_begins_at_the_latents_it_is_given():
    result = run(at(-1.0, -1.0), latents=at(-0.2, -0.6), keep_path=True)
    assert torch.equal(result.start_latents, at(-0.2, -0.6))
    assert result.steps.tolist() == [2, 3]
    assert torch.equal(result.path[0][0], at(-0.2)[0])


# Work


@pytest.mark.parametrize("window", [None, 1, 2, 3, 5])
@pytest.mark.parametrize("refine", [False, True])
def test_the_work_is_one_decode_an_example_one_a_step_and_six_to_refine(window: int | None, refine: bool):
    decode, predict = Counting(mixed_decode), Counting(two_logits)
    options = {"rule": UnitGradient(1.5), "max_steps": 9, "internal_batch_size": window, "refine": refine}
    result = run(MIXED, decode, predict, **options)
    steps, found = result.steps.sum(), (result.status == Status.FOUND).sum()
    assert steps > 10
    assert found == 3
    assert decode.examples == len(MIXED) + steps + (6 * found if refine else 0)
    # The model also sees the inputs.
    assert predict.examples == decode.examples + len(MIXED)


def test_an_example_that_has_ended_is_not_decoded_again():
    decode = Counting(plane)
    result = run(at(-1.0, -0.5, -2.0), decode=decode)
    assert result.steps.tolist() == [3, 2, 5]
    assert [len(batch) for batch in decode.batches] == [3, 3, 3, 2, 1, 1]


def test_one_that_waits_takes_the_place_of_one_that_has_ended():
    decode = Counting(plane)
    result = run(at(-2.0, 0.1, 0.1, 0.1), decode=decode, internal_batch_size=2)
    assert result.steps.tolist() == [5, 1, 1, 1]
    # Beside the slow one the three quick ones are judged, and step, one after the other.
    assert [len(batch) for batch in decode.batches] == [2, 2, 1, 2, 1, 2, 1, 1]


def test_places_are_filled_by_the_quarter_window_not_one_by_one():
    decode = Counting(plane)
    starts = torch.linspace(-4.0, 0.3, 60)
    result = run(at(*starts.tolist()), decode=decode, internal_batch_size=16)
    assert result.reached.all()
    admitted = [len(batch) for batch in decode.batches if torch.isin(batch[:, 0], starts).all()]
    assert sum(admitted) == 60
    assert admitted[0] == 16
    assert min(admitted[:-1]) >= 4


def test_no_batch_is_larger_than_the_window():
    decode, predict = Counting(plane), Counting(two_logits)
    run(at(*torch.linspace(-4.0, 1.0, 30).tolist()), decode, predict, internal_batch_size=7, refine=True)
    assert max(len(batch) for batch in (*decode.batches, *predict.batches)) == 7


def test_auto_begins_with_256():
    decode = Counting(plane)
    run(at(*torch.linspace(-0.5, 0.4, 300).tolist()), decode, internal_batch_size="auto")
    assert max(len(batch) for batch in decode.batches) == 256


@pytest.mark.parametrize("window", [None, 2])
def test_after_each_round_it_is_told_how_many_have_ended(window: int | None):
    told: list[int] = []
    result = run(at(-1.0, -0.5, 2.0, -2.0), on_end=told.append, internal_batch_size=window)
    assert result.steps.tolist() == [3, 2, 0, 5]
    assert told == sorted(told)
    assert told[-1] == 4
    if window is None:
        assert told[:5] == [1, 2, 3, 3, 4]


def test_a_goal_that_does_not_fit_the_output_is_refused_before_the_search():
    decode = Counting(plane)
    with pytest.raises(ValueError, match="class 2 is out of range"):
        run(at(-1.0), decode=decode, goal=ReachClass(2))
    assert decode.examples == 0


# The time limit


def _clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that a test sets, in place of the loop's."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.mark.parametrize("window", [None, 2])
def test_the_time_limit_ends_all_that_still_search_with_their_best(monkeypatch: pytest.MonkeyPatch, window: int | None):
    clock = _clock(monkeypatch)

    def slow(points: Tensor) -> Tensor:
        clock.now += 1.0
        return points

    result = run(at(-9.0, 0.1, -9.0, 2.0, -8.0), decode=slow, max_seconds=5.5, internal_batch_size=window)
    limit, found, already = Status.TIME_LIMIT, Status.FOUND, Status.ALREADY_THERE
    assert result.statuses() == [limit, found, limit, already, limit]
    assert result.reached.tolist() == [False, True, False, True, False]
    assert 0 < result.steps[0] < 10
    expected = torch.where(
        result.status == limit, at(-9.0, 0, -9.0, 0, -8.0)[:, 0] + result.steps / 2, result.end_latents[:, 0]
    )
    torch.testing.assert_close(result.end_latents[:, 0], expected)
    # Also of those that never searched it is known what their reconstructions are worth.
    torch.testing.assert_close(result.reconstruction_scores, result.start_scores)


def test_a_time_that_is_over_at_once_still_judges_everyone(monkeypatch: pytest.MonkeyPatch):
    clock = _clock(monkeypatch)
    ended: list[int] = []

    def slow(points: Tensor, rows: Tensor) -> Tensor:
        clock.now += 1.0
        return two_logits(points, rows)

    result = run(
        at(-1.0, 0.3, 2.0), lambda z: z + 0.2, slow, max_seconds=0.5, internal_batch_size=1, on_end=ended.append
    )
    assert result.statuses() == [Status.TIME_LIMIT, Status.FOUND, Status.ALREADY_THERE]
    assert result.steps.sum() <= 1
    assert ended[-1] == 3


def test_without_a_time_limit_there_is_none(monkeypatch: pytest.MonkeyPatch):
    clock = _clock(monkeypatch)
    clock.now = 1e300
    assert run(at(-1.0)).statuses() == [Status.FOUND]


def test_where_no_one_searches_all_have_ended():
    told: list[int] = []
    run(at(2.0, 3.0), on_end=told.append)
    assert told[-1] == 2
