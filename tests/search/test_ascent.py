r"""Ascent: steps, steps taken back, restarts with shorter ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from plane import Counting, at, first_coordinate, mixed_decode, overflowing, problem, run, two_logits
from torch import Tensor

from captum_dcf.search import (
    Adam,
    Ascent,
    Evaluation,
    Goal,
    Near,
    Options,
    ReachClass,
    Status,
    StepRule,
    UnitGradient,
    Verdict,
)
from captum_dcf.search import run as run_engine
from captum_dcf.search.searcher import State


class Plain(StepRule):
    r"""Steps of one length, which are not named, so that there are no restarts."""

    def __init__(self, length: float) -> None:
        self.length = length

    def step(self, z: Tensor, gradient: Tensor, scale: Tensor, state: State) -> tuple[Tensor, State]:
        return z - self.length * gradient / gradient.norm(dim=1, keepdim=True), state


# Where no step is taken


def test_stalled_where_the_gradient_vanishes():
    def dead(points: Tensor, rows: Tensor) -> Tensor:
        return two_logits(points.clamp_min(0), rows)

    result = run(at(-1.0), predict=dead)
    assert result.statuses() == [Status.STALLED]
    assert result.steps.tolist() == [0]
    assert torch.equal(result.counterfactuals, at(-1.0))


def test_stalled_where_a_step_is_lost_in_rounding():
    # Beside a million, float32 does not see 0.001.
    start = torch.tensor([[1e6, 0.0]])
    result = run(start, predict=lambda x, rows: two_logits(x - 2e6, rows), rule=UnitGradient(1e-3))
    assert result.statuses() == [Status.STALLED]


def test_not_finite_where_no_step_is_small_enough():
    result = run(at(-1.0), decode=lambda z: torch.where(z[:, :1] > -1, torch.inf, z))
    assert result.statuses() == [Status.NOT_FINITE]
    assert torch.equal(result.counterfactuals, at(-1.0))
    assert torch.equal(result.end_latents, at(-1.0))
    assert 15 <= result.steps.item() <= 25


def _steep(slope: float) -> Counting:
    """Logits whose gradient is ``slope`` times infinity at the starts."""

    def logits(points: Tensor, rows: Tensor) -> Tensor:
        return two_logits(points + slope * (points - points.detach()).sqrt(), rows)

    return Counting(logits)


@pytest.mark.parametrize("slope", [1.0, -1.0])
def test_not_finite_where_the_first_gradient_is_infinite(slope: float):
    # The root of zero has an infinite slope, but in the coordinate that has no part, where it is not a number.
    steep = _steep(slope)
    result = run(at(-1.0), predict=steep)
    assert result.statuses() == [Status.NOT_FINITE]
    assert torch.equal(result.counterfactuals, at(-1.0))
    assert steep.examples == 2


def test_an_infinite_gradient_is_not_stepped_along():
    class Slope(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return gradient * torch.inf

    result = run(at(-1.0)[:, :1], predict=lambda x, rows: two_logits(Slope.apply(x), rows))
    assert result.statuses() == [Status.NOT_FINITE]
    assert result.steps.tolist() == [0]


def test_not_finite_outputs_are_backed_off_like_decodes():
    def torn(points: Tensor, rows: Tensor) -> Tensor:
        return torch.where(points[:, :1] > 0.6, torch.nan, two_logits(points, rows))

    result = run(at(-1.0), predict=torn, rule=UnitGradient(2.0))
    assert result.statuses() == [Status.FOUND]
    assert 0.4394 < result.counterfactuals[0, 0] <= 0.6


# Steps taken back


def test_a_step_that_overflows_is_halved_until_it_does_not():
    start, rule = at(-0.1), UnitGradient(4.0)
    decode = Counting(overflowing)
    result = run(start, decode=decode, rule=rule)
    assert result.statuses() == [Status.FOUND]
    assert overflowing(result.end_latents).isfinite().all()
    # -0.1 + 4, + 2, + 1 and + ½, which is not enough, and on with a whole step.
    tried = torch.cat(decode.batches)[:, 0]
    torch.testing.assert_close(tried[:5], torch.tensor([-0.1, 3.9, 1.9, 0.9, 0.4]))
    torch.testing.assert_close(tried[5], torch.tensor(4.4), atol=0.05, rtol=0)


def test_a_step_to_where_the_gradient_is_dead_is_taken_back():
    # Far out decoders saturate: all is finite there, but there is no way on.
    result = run(at(-0.1), decode=lambda z: torch.where(z > 0.6, torch.full_like(z, -1.0), z), rule=UnitGradient(2.0))
    assert result.statuses() == [Status.FOUND]
    assert 0.4394 < result.end_latents[0, 0] <= 0.6


def test_stalled_where_all_ways_lead_to_dead_gradients():
    result = run(at(-1.0), decode=lambda z: torch.where(z[:, :1] > -1, torch.full_like(z, -2.0), z))
    assert result.statuses() == [Status.STALLED]
    assert torch.equal(result.counterfactuals, at(-1.0))
    assert 15 <= result.steps.item() <= 25


def test_halvings_are_counted_from_the_last_good_step():
    # Every other half unit is infinite. The search is held up more than twenty times, and never for long.
    decode = Counting(lambda z: torch.where(z[:, :1] % 1 > 0.5, torch.inf, z))
    result = run(at(-60.0), decode=decode, rule=Plain(0.75), max_steps=500)
    assert result.statuses() == [Status.FOUND]
    assert (torch.cat(decode.batches)[:, 0] % 1 > 0.5).sum() > 21


def test_infinite_latents_that_do_not_move_do_no_harm():
    # As of a flow that takes the logit of pixels, where one is black: its latent is infinite.
    def decode(z: Tensor) -> Tensor:
        return torch.stack((z[:, 0], z[:, 1].sigmoid()), dim=1)

    black = {"encode": lambda x: torch.stack((x[:, 0], x[:, 1].logit()), dim=1), "decode": decode}
    start = torch.tensor([[-0.1, 0.0]])
    far, near = (run(start, rule=UnitGradient(4.0), refine=refine, **black) for refine in (False, True))
    assert far.start_latents[0, 1] == -torch.inf
    assert far.statuses() == near.statuses() == [Status.FOUND]
    assert far.counterfactuals[0, 1] == near.counterfactuals[0, 1] == 0
    assert 0.4394 < near.end_latents[0, 0] < 0.6 < far.end_latents[0, 0]


@pytest.mark.parametrize("rule", [Adam(0.1), UnitGradient(0.5)])
def test_latents_that_are_not_a_number_end_a_search(rule: StepRule):
    nan = {"encode": lambda x: x * torch.nan, "decode": lambda z: torch.nan_to_num(z, nan=-1.0)}
    result = run(at(-1.0), rule=rule, max_steps=500, **nan)
    assert result.steps.item() < 200
    assert result.statuses() == [Status.STALLED]


def test_only_the_example_that_overflows_is_held_back():
    start = torch.tensor([[-1.5, 1.0], [-0.2, 2.0]])
    alone, both = run(start[:1], decode=mixed_decode), run(start, decode=mixed_decode)
    assert both.steps[0] == alone.steps[0]
    torch.testing.assert_close(both.counterfactuals[0], alone.counterfactuals[0])


def test_adam_keeps_its_memory_through_a_step_taken_back():
    # From the same origin the halved trial is half the step: the moments did not move with the step that failed.
    decode = Counting(lambda z: torch.where(z[:, :1] > 0.5, torch.inf, z))
    result = run(at(0.2), decode=decode, rule=Adam(0.4))
    tried = torch.cat(decode.batches)[:, 0]
    torch.testing.assert_close(tried[:3], torch.tensor([0.2, 0.6, 0.4]))
    # And the step after it is the second that Adam takes.
    rule, asked, row = Adam(0.4), problem(at(0.2)), torch.tensor([0])
    first, second = (asked.evaluate(at(x), row, gradient=True).gradient for x in (0.2, 0.4))
    whole = torch.ones(1, 1)
    _, state = rule.step(at(0.2), first, whole, rule.start(at(0.2)))
    expected, _ = rule.step(at(0.4), second, whole, state)
    torch.testing.assert_close(tried[3], expected[0, 0])
    assert result.statuses() == [Status.FOUND]


def test_a_step_after_one_taken_back_begins_at_a_full_count_of_halvings():
    # Each of two walls is passed by the 19th halving or so; together they would be too many.
    def walls(z: Tensor) -> Tensor:
        x = z[:, :1]
        near = ((x > -1 + 1e-5) & (x < -0.9)) | ((x > -0.5 + 1e-5) & (x < -0.4))
        return torch.where(near, torch.inf, z)

    result = run(at(-1.0), decode=walls, rule=Plain(0.05), max_steps=200)
    assert result.steps.item() > 13


class Tiring(StepRule):
    r"""A rule of one's own, whose memory has one number per example: every step is shorter than the last."""

    def start(self, z: Tensor) -> State:
        return {"size": torch.ones(len(z))}

    def step(self, z: Tensor, gradient: Tensor, scale: Tensor, state: State) -> tuple[Tensor, State]:
        direction = gradient / gradient.norm(dim=1, keepdim=True)
        return z - state["size"][:, None] * direction, {"size": state["size"] / 2}


def test_a_rule_may_remember_one_number_per_example():
    decode = Counting(lambda z: torch.where(z[:, :1] > 0.5, torch.inf, z))
    result = run(at(-0.9, -0.2, -9.0), decode=decode, rule=Tiring())
    # -0.9 + 1 + ½ is taken back by half to 0.35, and 0.35 + ¼ by half to 0.475. From -9, two in all is too little.
    torch.testing.assert_close(result.counterfactuals[0], at(0.475)[0])
    assert result.statuses()[2] is not Status.FOUND
    for row, start in enumerate((-0.9, -0.2, -9.0)):
        alone = run(at(start), decode=decode, rule=Tiring())
        assert alone.status[0] == result.status[row]
        torch.testing.assert_close(alone.counterfactuals[0], result.counterfactuals[row])


class Named(Tiring):
    r"""One that uses the names of the searcher's own state, and says its length by one number per example."""

    def start(self, z: Tensor) -> State:
        return {**super().start(z), "length": torch.ones(len(z)), "start": z + 9, "scale": z[:, :1], "mark": z * 2}

    def step(self, z: Tensor, gradient: Tensor, scale: Tensor, state: State) -> tuple[Tensor, State]:
        stepped, size = super().step(z, gradient, scale, state)
        return stepped, {**state, **size}


def test_a_rule_may_use_any_names_and_say_its_length_by_one_number_per_example():
    named, plain = (run(at(-0.9, -0.2, -9.0), rule=rule) for rule in (Named(), Tiring()))
    torch.testing.assert_close(named.counterfactuals, plain.counterfactuals)


# Restarts with shorter steps


def _walk(rule: StepRule, signs: list[int]) -> list[float]:
    """Where an ascent that is shown gradients of these signs goes along a line, from 0."""
    asked = problem(torch.zeros(1, 2))
    searcher, evaluation = Ascent(rule), asked.evaluate(torch.zeros(1, 2), torch.tensor([0]), gradient=True)
    state, way = searcher.start(asked, evaluation), []
    for sign in signs:
        evaluation = replace(evaluation, gradient=torch.tensor([[-3.0 * sign, 0.0]]))
        points, state, _ = searcher.step(asked, evaluation, state)
        evaluation = replace(evaluation, points=points)
        way.append(points[0, 0].item())
    return way


TO_AND_FRO = [1, -1, 1, -1, 1, -1, 1]


def test_a_search_in_circles_restarts_with_shorter_steps():
    way = _walk(UnitGradient(1.0, patience=7), [*TO_AND_FRO, 1, *TO_AND_FRO, 1, 1])
    assert way == pytest.approx([1, 0, 1, 0, 1, 0, 1, 0, 0.7, 0, 0.7, 0, 0.7, 0, 0.7, 0, 0.49])


def test_a_search_in_circles_that_is_at_its_start_goes_on_with_shorter_steps():
    way = _walk(UnitGradient(1.0, patience=4), [1, -1, 1, -1, 1, 1])
    assert way == pytest.approx([1, 0, 1, 0, 0.7, 1.4])


@pytest.mark.parametrize("signs", [[1], [1, 1, -1], [1, 1, 1, -1, -1]])
def test_a_search_that_gets_on_is_left_alone(signs: list[int]):
    # In a zigzag it gets on by a third, or a fifth, of its way.
    steps = (signs * 60)[:60]
    assert _walk(UnitGradient(1.0, patience=10), steps) == pytest.approx(torch.tensor(steps).cumsum(0).tolist())


def test_after_a_restart_the_way_is_measured_from_the_start():
    # Out to 6, in circles there, and back; ten steps of 0.7 lead to 7, far from the start and near the circles.
    signs = [1] * 8 + [-1] * 2 + [1, -1] * 5 + [1] + [1] * 11
    assert _walk(UnitGradient(1.0, patience=10), signs)[-3:] == pytest.approx([6.3, 7.0, 7.7])


def test_a_search_that_finds_no_step_restarts_with_shorter_ones_six_times():
    # One step leads to 1.0, and beyond that nothing does.
    decode = Counting(lambda z: torch.where(z[:, :1] > -0.3, torch.inf, z))
    result = run(at(-2.0), decode=decode, rule=UnitGradient(1.5), max_steps=5000)
    assert result.statuses() == [Status.NOT_FINITE]
    tried = torch.cat(decode.batches)[:, 0]
    starts = (tried == -2.0).nonzero().squeeze(1)[:-1]
    firsts = (tried[starts + 1] + 2.0).tolist()
    assert len(starts) >= 6
    assert firsts[:6] == pytest.approx([1.5 * 0.7**attempt for attempt in range(6)])
    assert result.steps.item() == decode.examples - 1


def test_a_search_that_is_caught_at_its_start_does_not_restart():
    result = run(
        at(-1.0), decode=lambda z: torch.where(z[:, :1] > -1, torch.inf, z), rule=UnitGradient(0.5), max_steps=500
    )
    assert result.steps.item() < 25


def _wall(points: Tensor) -> Tensor:
    # A wall with one hole. Steps of ½ end at its foot, and halves of ½ miss the hole; steps of 0.35 come through it.
    x = points[:, :1]
    return torch.where((x > 0) & (x < 0.3) | (x > 0.4) & (x < 0.55), torch.full_like(points, -2.0), points)


def test_a_search_that_is_caught_restarts_and_arrives():
    both = at(-1.0, -9.0)
    assert run(both[:1], decode=_wall, rule=Plain(0.5)).statuses() == [Status.STALLED]
    result = run(both, decode=_wall, rule=UnitGradient(0.5), keep_path=True)
    assert result.statuses() == [Status.FOUND, Status.STEP_LIMIT]
    tried = result.path[0][:, 0].tolist()
    again = tried.index(-1.0, 1)
    assert tried[again + 1] == pytest.approx(-0.65)
    assert result.end_latents[0, 0] > 0.55


def test_one_that_restarts_leaves_the_steps_of_its_neighbours_as_they_are():
    # The second is far from any wall while the first is caught and restarts.
    start = torch.tensor([[-1.0, 0.25], [-40.0, 0.25]])

    def predict(points: Tensor, rows: Tensor) -> Tensor:
        return two_logits(points + torch.tensor([0.0, 30.0])[rows, None] * 0, rows)

    both = run(start, decode=_wall, predict=predict, rule=UnitGradient(0.5), max_steps=60, keep_path=True)
    alone = run(start[1:], decode=_wall, rule=UnitGradient(0.5), max_steps=60, keep_path=True)
    assert both.path[0][:, 0].tolist().count(-1.0) > 1
    torch.testing.assert_close(both.path[1], alone.path[0])
    torch.testing.assert_close(both.path[1][:, 0], -40.0 + 0.5 * torch.arange(61))


class Momentum(UnitGradient):
    r"""Counts its steps, and names a length."""

    def start(self, z: Tensor) -> State:
        return {**super().start(z), "count": torch.zeros_like(z[:, :1])}

    def step(self, z: Tensor, gradient: Tensor, scale: Tensor, state: State) -> tuple[Tensor, State]:
        stepped, state = super().step(z, gradient, scale, state)
        self.counts.append(state["count"].squeeze(1).tolist())
        return stepped, {**state, "count": state["count"] + 1}


def test_a_restart_forgets_what_the_rule_remembered_of_that_example_only():
    rule = Momentum(0.5)
    object.__setattr__(rule, "counts", [])
    run(torch.tensor([[-1.0, 0.25], [-40.0, 0.25]]), decode=_wall, rule=rule, max_steps=50)
    ours = [counts[0] for counts in rule.counts if len(counts) == 2]
    assert 0 in ours[1:]
    others = [counts[-1] for counts in rule.counts]
    assert others == sorted(others)


@pytest.mark.parametrize(("max_steps", "status"), [(200, Status.STEP_LIMIT), (5000, Status.NOT_FINITE)])
def test_a_search_that_is_always_caught_ends_and_says_why(max_steps: int, status: Status):
    result = run(at(-1.0), decode=lambda z: torch.where(z[:, :1] > 0, torch.inf, z), max_steps=max_steps)
    assert result.statuses() == [status]
    assert result.steps.item() < 2000


def test_a_search_that_goes_round_in_circles_arrives_with_shorter_steps():
    # From 0 to 0.5, back to 0, and so on; with steps of 0.35 it arrives at once.
    goal, rule = Near(0.35, tolerance=0.01), UnitGradient(0.5, patience=6)
    impatient = run(at(0.0), predict=first_coordinate, goal=goal, rule=rule)
    assert impatient.statuses() == [Status.FOUND]
    assert impatient.steps.tolist() == [7]
    torch.testing.assert_close(impatient.counterfactuals, at(0.35))
    patient = run(at(0.0), predict=first_coordinate, goal=goal, rule=UnitGradient(0.5, patience=99))
    assert patient.statuses() == [Status.STEP_LIMIT]


# What moves, and what a model without gradient is told


@pytest.mark.parametrize("free", [slice(1, 3), torch.tensor([2, 1])])
def test_only_free_coordinates_move(free: slice | Tensor):
    start = torch.randn(5, 4)

    def predict(points: Tensor, rows: Tensor) -> Tensor:
        return two_logits(points.sum(1, keepdim=True), rows)

    result = run(start, predict=predict, goal=ReachClass(1, 0.9999), free=free)
    moved = (result.end_latents != start).any(0)
    assert moved.tolist() == [False, True, True, False]
    assert result.reached.all()


def test_the_model_is_told_which_rows_it_judges():
    def shifted(points: Tensor, rows: Tensor) -> Tensor:
        return two_logits(points - torch.tensor([0.0, 1.0, 2.0])[rows, None], rows)

    result = run(at(0.1, 0.1, 0.1), predict=shifted)
    assert result.steps.tolist() == [1, 3, 5]


# Careful steps


def test_a_careful_search_of_a_linear_loss_takes_four_steps_or_more():
    class Linear(Goal):
        def judge(self, output: Tensor, rows: Tensor, softening: float = 0.0) -> Verdict:
            left = 2.0 - output.flatten()
            return Verdict(left, -left, left <= 1e-4)

    # The loss vanishes 3 from the first start and 0.5 from the second; the rule's steps are of length 2.
    start = at(-1.0, 1.5)
    asked = problem(start, predict=first_coordinate, goal=Linear())
    careful = run_engine(asked, Ascent(UnitGradient(2.0), careful=True), Options(), 20)
    assert careful.steps.tolist() == [4, 4]
    assert run_engine(asked, Ascent(UnitGradient(2.0)), Options(), 20).steps.tolist() == [2, 1]
    # Steps are made shorter, never longer.
    short = run_engine(asked, Ascent(UnitGradient(0.1), careful=True), Options(), 50)
    assert short.steps.tolist() == [30, 5]


def test_a_careful_search_whose_slope_vanishes_at_the_start_takes_the_steps_of_the_rule():
    state = Ascent(UnitGradient(0.5), careful=True).start(problem(at(0.0)), flat_evaluation())
    assert state["rule.length"].tolist() == [[0.5]]


def test_a_restart_keeps_careful_steps():
    searcher = Ascent(UnitGradient(0.5, patience=2), careful=True)
    asked = problem(at(-1.0))
    state = searcher.start(asked, asked.evaluate(at(-1.0), torch.zeros(1, dtype=torch.int64), gradient=True))
    length = state["rule.length"]
    assert length.item() < 0.5
    again, restarts = searcher._restart(state, torch.tensor([True]), at(0.0))
    assert restarts.all()
    assert torch.equal(again["rule.length"], length)


def flat_evaluation() -> Evaluation:
    one, none = torch.ones(1), torch.zeros(1)
    flags = torch.tensor([False]), torch.tensor([True])
    return Evaluation(torch.zeros(1, dtype=torch.int64), at(0.0), at(0.0), one, none, *flags, 0 * at(0.0), one, none)
