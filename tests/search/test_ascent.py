r"""The search on a plane, where every step can be followed by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from captum_dcf.search import (
    Adam,
    AtLeast,
    AtMost,
    Counterfactual,
    Goal,
    LeaveClass,
    Near,
    Problem,
    ReachClass,
    Status,
    StepRule,
    UnitGradient,
    ascend,
)


def plane(points: Tensor) -> Tensor:
    return points


def two_logits(points: Tensor, rows: Tensor) -> Tensor:
    # Class 1 has a probability above 0.9 where 5 x₀ > log 9, that is beyond x₀ = 0.4394.
    return torch.stack((torch.zeros_like(points[:, 0]), 5 * points[:, 0]), dim=1)


def at(*coordinates: float) -> Tensor:
    return torch.tensor([[x, 0.25] for x in coordinates])


def run(
    start: Tensor,
    decode: Callable[[Tensor], Tensor] = plane,
    predict: Callable[[Tensor, Tensor], Tensor] = two_logits,
    goal: Goal = ReachClass(1, confidence=0.9),  # noqa: B008 (frozen)
    rule: StepRule = UnitGradient(0.5),  # noqa: B008 (frozen)
    max_steps: int = 50,
    latents: Tensor | None = None,
    refine: bool = False,
    keep_path: bool = False,
    **problem: object,
) -> Counterfactual:
    return ascend(
        start,
        start.clone() if latents is None else latents,
        Problem(decode, predict, goal, **problem),
        rule,
        max_steps,
        refine,
        keep_path,
    )


class Counting:
    r"""Wraps a function of a batch and counts and keeps what it was given."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.batches: list[Tensor] = []

    def __call__(self, batch: Tensor, *others: Tensor) -> Tensor:
        self.batches.append(batch.detach().clone())
        return self.function(batch, *others)

    @property
    def examples(self) -> int:
        return sum(map(len, self.batches))


# How searches end


def test_found_after_the_steps_it_takes():
    result = run(at(-1.0))
    assert result.statuses() == [Status.FOUND]
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
    assert result.steps.tolist() == [0]
    assert torch.equal(result.counterfactuals, at(2.0))
    assert torch.equal(result.attributions, torch.zeros(1, 2))


def test_found_without_a_step_where_the_reconstruction_reaches_the_goal():
    result = run(at(0.3), decode=lambda z: z + 1)
    assert result.statuses() == [Status.FOUND]
    assert result.steps.tolist() == [0]
    assert torch.equal(result.counterfactuals, at(0.3) + 1)


def test_best_effort_at_the_step_limit():
    result = run(at(-1.0), max_steps=2)
    assert result.statuses() == [Status.BEST_EFFORT]
    assert result.steps.tolist() == [2]
    torch.testing.assert_close(result.counterfactuals, at(0.0))
    torch.testing.assert_close(result.end_scores, torch.tensor([0.5]))


def test_found_with_the_last_step_allowed():
    assert run(at(-1.0), max_steps=3).statuses() == [Status.FOUND]


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


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_not_finite_at_the_first_decode_gives_the_input_back(bad: float):
    result = run(at(-1.0), decode=lambda z: z * bad)
    assert result.statuses() == [Status.NOT_FINITE]
    assert result.steps.tolist() == [0]
    assert torch.equal(result.counterfactuals, at(-1.0))
    torch.testing.assert_close(result.end_scores, result.start_scores)


def test_not_finite_where_the_first_gradient_is_not():
    # The root of zero has an infinite slope.
    def steep(points: Tensor, rows: Tensor) -> Tensor:
        return two_logits(points - 1 + (points - points.detach()).sqrt(), rows)

    result = run(at(-1.0), predict=steep)
    assert result.statuses() == [Status.NOT_FINITE]
    assert torch.equal(result.counterfactuals, at(-1.0))


def test_not_finite_outputs_are_backed_off_like_decodes():
    def torn(points: Tensor, rows: Tensor) -> Tensor:
        return torch.where(points[:, :1] > 0.6, torch.nan, two_logits(points, rows))

    result = run(at(-1.0), predict=torn, rule=UnitGradient(2.0))
    assert result.statuses() == [Status.FOUND]
    assert 0.4394 < result.counterfactuals[0, 0] <= 0.6


def test_not_reconstructed_where_the_model_changes_its_mind():
    start = at(-0.1)
    result = run(start, decode=lambda z: -z)
    assert result.statuses() == [Status.NOT_RECONSTRUCTED]
    assert result.steps.tolist() == [0]
    assert torch.equal(result.counterfactuals, -start)
    assert torch.equal(result.reconstructions, -start)
    torch.testing.assert_close(result.end_scores, torch.tensor([0.5]).sigmoid())


def test_a_value_goal_tells_a_lost_reconstruction_by_the_value():
    result = run(at(-0.1), decode=lambda z: -z, predict=lambda x, rows: x[:, 0], goal=AtLeast(0.0))
    assert result.statuses() == [Status.NOT_RECONSTRUCTED]


# Work


def mixed_decode(points: Tensor) -> Tensor:
    # Row by its second coordinate: 1 as it is, 2 overflows beyond x₀ = 0.6, 3 is mirrored, 4 is not a number.
    kind = points[:, 1:].round()
    overflow = torch.where((kind == 2) & (points[:, :1] > 0.6), torch.inf, points)
    mirrored = torch.where(kind == 3, points * points.new_tensor([-1.0, 1.0]), overflow)
    return torch.where(kind == 4, torch.nan, mirrored)


MIXED = torch.tensor([[-1.0, 1.0], [-1.2, 2.0], [2.0, 1.0], [-0.4, 3.0], [-0.3, 4.0], [0.1, 1.0], [-30.0, 1.0]])
MIXED_ENDS = [
    Status.FOUND,
    Status.FOUND,
    Status.ALREADY_THERE,
    Status.NOT_RECONSTRUCTED,
    Status.NOT_FINITE,
    Status.FOUND,
    Status.BEST_EFFORT,
]


def test_one_batch_can_end_in_many_ways():
    assert run(MIXED, decode=mixed_decode, rule=UnitGradient(1.5), max_steps=9).statuses() == MIXED_ENDS


def test_the_work_is_one_decode_an_example_and_one_a_step():
    decode, predict, rounds = Counting(mixed_decode), Counting(two_logits), []
    problem = Problem(decode, predict, ReachClass(1, confidence=0.9))
    result = ascend(MIXED, MIXED.clone(), problem, UnitGradient(1.5), 9, on_round=rounds.append)
    assert result.steps.sum() > 10
    assert decode.examples == len(MIXED) + result.steps.sum()
    # The model also sees the inputs.
    assert predict.examples == 2 * len(MIXED) + result.steps.sum()
    assert sum(rounds) == result.steps.sum()
    assert len(rounds) == result.steps.max()
    assert rounds == sorted(rounds, reverse=True)


def test_an_example_that_has_ended_is_not_decoded_again():
    decode = Counting(plane)
    result = run(at(-1.0, -0.5, -2.0), decode=decode)
    assert result.steps.tolist() == [3, 2, 5]
    assert [len(batch) for batch in decode.batches] == [3, 3, 3, 2, 1, 1]


# Back-off


def overflowing(points: Tensor) -> Tensor:
    return torch.where(points.norm(dim=1, keepdim=True) > 0.7, torch.inf, points)


def test_a_step_that_overflows_is_halved_until_it_does_not():
    start, rule = at(-0.1), UnitGradient(4.0)
    # The step itself leaves the ball in which decodes are finite, and with it every later one would.
    stepped, _ = rule.step(start, torch.tensor([[-1.0, 0.0]]), {})
    assert not overflowing(stepped).isfinite().any()
    decode = Counting(overflowing)
    result = run(start, decode=decode, rule=rule)
    assert result.statuses() == [Status.FOUND]
    assert overflowing(result.end_latents).isfinite().all()
    # -0.1 + 4, + 2, + 1 and + ½, which is not enough, and on with a whole step: halved 8 times it is.
    tried = torch.cat(decode.batches)[:, 0]
    torch.testing.assert_close(tried[:5], torch.tensor([-0.1, 3.9, 1.9, 0.9, 0.4]))


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


def test_only_the_example_that_overflows_is_held_back():
    alone = run(at(-1.5), decode=mixed_decode, latents=torch.tensor([[-1.5, 1.0]]))
    both = run(at(-1.5, -0.2), decode=mixed_decode, latents=torch.tensor([[-1.5, 1.0], [-0.2, 2.0]]))
    assert both.steps[0] == alone.steps[0]
    assert torch.equal(both.counterfactuals[0], alone.counterfactuals[0])


def test_adam_keeps_its_memory_through_a_step_taken_back():
    # From the same origin the halved trial is half the step: the moments did not move with the step that failed.
    decode = Counting(lambda z: torch.where(z[:, :1] > 0.5, torch.inf, z))
    result = run(at(0.2), decode=decode, rule=Adam(0.4))
    tried = torch.cat(decode.batches)[:, 0]
    torch.testing.assert_close(tried[:3], torch.tensor([0.2, 0.6, 0.4]))
    # And the step after it is the second that Adam takes.
    rule = Adam(0.4)
    _, state = rule.step(at(0.2), _gradient(at(0.2)), rule.start(at(0.2)))
    second, _ = rule.step(at(0.4), _gradient(at(0.4)), state)
    torch.testing.assert_close(tried[3], second[0, 0])
    assert result.statuses() == [Status.FOUND]


def _gradient(points: Tensor) -> Tensor:
    points = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(ReachClass(1).loss(two_logits(points, points)).sum(), points)
    return gradient


class Tiring(StepRule):
    r"""A rule of one's own, whose memory has one number per example: every step is shorter than the last."""

    def start(self, z: Tensor) -> dict[str, Tensor]:
        return {"length": torch.ones(len(z))}

    def step(self, z: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        moved, _ = UnitGradient(1.0).step(torch.zeros_like(z), gradient, {})
        return z + state["length"][:, None] * moved, {"length": state["length"] / 2}


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


# Independence


def bent(points: Tensor) -> Tensor:
    return torch.tanh(points) + 0.3 * points.flip(1).sin()


def three_logits(points: Tensor, rows: Tensor) -> Tensor:
    x, y = points.unbind(1)
    return 4 * torch.stack((x + y, -x + y.square(), x.square() - y), dim=1)


@pytest.mark.parametrize("rule", [UnitGradient(0.3), Adam(0.1)])
@pytest.mark.parametrize("goal_of", [ReachClass, LeaveClass])
@pytest.mark.parametrize("refine", [False, True])
def test_each_example_gets_what_it_gets_alone(rule: StepRule, goal_of: type[ReachClass], refine: bool):
    start = torch.randn(12, 2)
    targets = torch.arange(12) % 3

    def searched(keep: Tensor) -> Counterfactual:
        latents, goal = start[keep], goal_of(targets[keep], 0.95)
        return run(bent(latents), bent, three_logits, goal, rule, 40, latents, refine)

    together = searched(torch.arange(12))
    assert len(together.status.unique()) > 1
    assert len(together.steps.unique()) > 3
    for row in range(12):
        alone = searched(torch.tensor([row]))
        assert alone.steps.item() == together.steps[row]
        assert alone.status.item() == together.status[row]
        torch.testing.assert_close(alone.counterfactuals[0], together.counterfactuals[row])
        torch.testing.assert_close(alone.end_scores[0], together.end_scores[row])


def test_value_goals_with_one_value_each():
    wanted = torch.tensor([1.0, 2.0, 3.0])
    result = run(at(0.0, 0.0, 0.0), predict=lambda x, rows: 2 * x[:, 0], goal=Near(wanted, 0.3), rule=UnitGradient(0.1))
    assert result.statuses() == [Status.FOUND] * 3
    assert ((2 * result.counterfactuals[:, 0] - wanted).abs() <= 0.3).all()
    assert result.steps.tolist() == sorted(set(result.steps.tolist()))


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_values_may_come_as_a_vector_or_a_column(shape: tuple[int, ...]):
    result = run(at(-0.9, 0.1), predict=lambda x, rows: x[:, 0].view(shape), goal=AtMost(-1.0))
    assert result.statuses() == [Status.FOUND] * 2
    assert result.steps.tolist() == [1, 3]


def test_the_model_is_told_which_rows_it_judges():
    def shifted(points: Tensor, rows: Tensor) -> Tensor:
        return two_logits(points - torch.tensor([0.0, 1.0, 2.0])[rows, None], rows)

    result = run(at(0.1, 0.1, 0.1), predict=shifted)
    assert result.steps.tolist() == [1, 3, 5]


# What is returned


def hill(points: Tensor, rows: Tensor) -> Tensor:
    # Class 1 has at most a probability of 0.88, on top of the hill at the origin.
    return torch.stack((torch.zeros_like(points[:, 0]), 2 - points.square().sum(1)), dim=1)


def test_the_best_on_the_way_is_returned():
    goal = ReachClass(1, 0.95)
    result = run(at(-1.3, -2.2), predict=hill, goal=goal, rule=UnitGradient(0.9), max_steps=7, keep_path=True)
    assert result.statuses() == [Status.BEST_EFFORT] * 2
    scores = torch.stack([goal.score(hill(frame, frame)) for frame in result.path])
    best, place = scores.max(0)
    torch.testing.assert_close(result.end_scores, best)
    torch.testing.assert_close(result.counterfactuals, result.path[place, torch.arange(2)])
    # It jumps over the hill, so the last is not the best.
    assert (place < len(result.path) - 1).all()


def test_end_latents_decode_to_the_counterfactuals():
    start = torch.randn(12, 2)
    goal = ReachClass(torch.arange(12) % 3, 0.999)
    result = run(bent(start), bent, three_logits, goal, UnitGradient(0.4), 6, start)
    searched = result.steps > 0
    assert {Status.FOUND, Status.BEST_EFFORT} <= set(result.statuses())
    torch.testing.assert_close(bent(result.end_latents)[searched], result.counterfactuals[searched])
    torch.testing.assert_close(goal.score(three_logits(result.counterfactuals, start)), result.end_scores)
    assert torch.equal(goal.reached(three_logits(result.counterfactuals, start)), result.reached)


@pytest.mark.parametrize("refine", [False, True])
def test_what_is_returned_is_what_was_judged(refine: bool):
    predict = Counting(two_logits)
    start = at(-0.8, -0.1, -0.4)
    result = run(start, lambda z: 2 * z, predict, latents=start / 2, data_range=(-0.7, 0.46), refine=refine)
    assert result.statuses() == [Status.FOUND] * 3
    seen = torch.cat(predict.batches)
    for image in result.counterfactuals:
        assert (seen == image).all(1).any()
    assert (seen[len(start) :] >= -0.7).all()
    assert (seen <= 0.46).all()
    assert result.counterfactuals[:, 0].max() == 0.46 or refine


def test_a_pixel_at_the_bound_keeps_its_gradient():
    # Decoded to 1.8 and clamped to 1, where a clamp's own gradient would be zero.
    result = run(at(-1.0), decode=lambda z: z - 0.8, data_range=(-1.0, 1.0))
    assert result.reconstructions[0, 0] == -1
    assert result.statuses() == [Status.FOUND]


def test_only_free_coordinates_move():
    start = torch.randn(5, 4)
    result = run(
        start,
        predict=lambda x, rows: two_logits(x.sum(1, keepdim=True), rows),
        goal=ReachClass(1, 0.9999),
        free=slice(1, 3),
    )
    moved = (result.end_latents != start).any(0)
    assert moved.tolist() == [False, True, True, False]
    assert result.reached.all()


def test_neither_inputs_nor_latents_are_changed():
    start, latents = at(-1.0, 0.2), at(-1.0, 0.2)
    result = run(start, latents=latents, keep_path=True, refine=True)
    assert torch.equal(start, at(-1.0, 0.2))
    assert torch.equal(latents, at(-1.0, 0.2))
    assert not any(
        tensor.requires_grad
        for tensor in (result.counterfactuals, result.end_latents, result.end_scores, result.start_scores, result.path)
    )


# Path and refinement


def test_the_path_begins_with_the_reconstruction_and_rests_at_the_end():
    result = run(at(-1.0, 0.1), keep_path=True)
    assert result.path.shape == (4, 2, 2)
    torch.testing.assert_close(result.path[:, 0], at(-1.0, -0.5, 0.0, 0.5))
    torch.testing.assert_close(result.path[:, 1], at(0.1, 0.6, 0.6, 0.6))
    assert run(at(-1.0)).path is None


def test_the_path_of_steps_taken_back_stays_finite():
    result = run(at(-0.1), decode=overflowing, rule=UnitGradient(4.0), keep_path=True)
    assert result.path.isfinite().all()
    assert len(result.path) == result.steps.item() + 1


def test_refining_brings_the_score_down_to_the_threshold():
    start = at(-1.0, -0.7, 0.3, 2.0)
    plain, refined = run(start), run(start, refine=True)
    assert refined.statuses() == plain.statuses() == [Status.FOUND] * 3 + [Status.ALREADY_THERE]
    assert torch.equal(refined.steps, plain.steps)
    found = slice(0, 3)
    assert (refined.end_scores[found] > 0.9).all()
    assert (refined.end_scores[found] < plain.end_scores[found]).all()
    # A 64th of the step of 0.5 at most beyond the threshold.
    threshold = torch.tensor(9.0).log() / 5
    assert (refined.counterfactuals[found, 0] - threshold <= 0.5 / 64 + 1e-6).all()
    torch.testing.assert_close(refined.end_scores[found], (5 * refined.counterfactuals[found, 0]).sigmoid())
    assert torch.equal(refined.end_latents, refined.counterfactuals)
    assert torch.equal(refined.counterfactuals[3], start[3])


def test_refining_costs_six_decodes_for_each_one_found():
    decode = Counting(mixed_decode)
    result = run(MIXED, decode=decode, rule=UnitGradient(1.5), max_steps=9, refine=True)
    found = (result.status == Status.FOUND).sum()
    assert decode.examples == len(MIXED) + result.steps.sum() + 6 * found


def test_refining_never_steps_into_what_is_not_finite():
    # On the way back from the one found lies a gap.
    def gapped(points: Tensor) -> Tensor:
        return torch.where((points[:, :1] > 0.45) & (points[:, :1] < 0.8), torch.nan, points)

    result = run(at(-0.1), decode=gapped, rule=UnitGradient(1.0), refine=True)
    assert result.statuses() == [Status.FOUND]
    assert result.counterfactuals.isfinite().all()
    assert (result.end_scores > 0.9).all()


# What a model without gradient is told


def test_an_output_without_gradient_is_refused():
    with pytest.raises(ValueError, match="differentiably"):
        run(at(-1.0), predict=lambda x, rows: two_logits(x.detach(), rows))


def test_an_output_that_depends_on_parameters_only_is_refused():
    weight = torch.ones(1, requires_grad=True)
    with pytest.raises(ValueError, match="differentiably"):
        run(at(-1.0), predict=lambda x, rows: two_logits(x.detach() * weight, rows))


def test_a_goal_that_does_not_fit_the_output_is_refused_before_the_search():
    decode = Counting(plane)
    with pytest.raises(ValueError, match="class 2 is out of range"):
        run(at(-1.0), decode=decode, goal=ReachClass(2))
    assert decode.examples == 0
