r"""What a search on a plane gives: row by row, the best on the way, the path, refinement, complaints."""

from __future__ import annotations

import pytest
import torch
from plane import MIXED, Counting, at, mixed_decode, overflowing, plane, run, two_logits
from torch import Tensor

from captum_dcf.search import (
    Adam,
    AtLeast,
    AtMost,
    Counterfactual,
    LeaveClass,
    Near,
    ReachClass,
    Status,
    StepRule,
    UnitGradient,
)

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


def test_what_is_not_finite_is_not_the_best_however_sure_the_model():
    # Clamped, infinity is the brightest of all images.
    burst = run(at(0.1), decode=lambda z: torch.where(z[:, :1] > 0.3, torch.inf, z), data_range=(0.0, 1.0), max_steps=1)
    assert torch.equal(burst.counterfactuals, at(0.1))
    torch.testing.assert_close(burst.end_scores, torch.tensor([0.5]).sigmoid())


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


@pytest.mark.parametrize("name", ["loss", "score", "reached"])
def test_a_goal_of_ones_own_gives_one_value_per_example(name: str):
    class Column(AtLeast):
        pass

    setattr(Column, name, lambda self, output: getattr(AtLeast, name)(self, output).unsqueeze(1))
    with pytest.raises(ValueError, match=rf"Column.{name} must give one value per example, \(2,\), received \(2, 1\)"):
        run(at(-1.0, -2.0), predict=lambda points, rows: points[:, 0], goal=Column(0.5))


# Another attempt


class OneAttempt(UnitGradient):
    def again(self, z: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return z, state


def test_a_search_that_is_caught_begins_again_with_shorter_steps():
    # A wall with one hole. Steps of ½ end at its foot, and halves of ½ miss the hole; steps of 0.35 come through it.
    def wall(points: Tensor) -> Tensor:
        x = points[:, :1]
        return torch.where((x > 0) & (x < 0.3) | (x > 0.4) & (x < 0.55), torch.full_like(points, -2.0), points)

    both = at(-1.0, -9.0)
    assert run(both[:1], decode=wall, rule=OneAttempt(0.5)).statuses() == [Status.STALLED]
    result = run(both, decode=wall, rule=UnitGradient(0.5), keep_path=True)
    assert result.statuses() == [Status.FOUND, Status.STALLED]
    tried = result.path[:, 0, 0].tolist()
    again = tried.index(-1.0, 1)
    assert tried[again + 1] == pytest.approx(-0.65)
    assert result.end_latents[0, 0] > 0.55
    alone = run(both[:1], decode=wall, rule=UnitGradient(0.5))
    assert torch.equal(alone.counterfactuals[0], result.counterfactuals[0])
    assert alone.steps[0] == result.steps[0]


@pytest.mark.parametrize("max_steps", [200, 5000])
def test_a_search_that_is_always_caught_ends_and_says_where(max_steps: int):
    result = run(at(-1.0), decode=lambda z: torch.where(z[:, :1] > 0, torch.inf, z), max_steps=max_steps)
    assert result.statuses() == [Status.NOT_FINITE]
    assert result.steps.item() < 2000


def test_a_search_that_goes_round_in_circles_begins_again_with_shorter_steps():
    # From 0 to 0.5, back to 0, and so on; with steps of 0.35 it arrives at once.
    goal, rule = Near(0.35, tolerance=0.01), UnitGradient(0.5, patience=6)
    impatient = run(at(0.0), predict=lambda points, rows: points[:, 0], goal=goal, rule=rule)
    assert impatient.statuses() == [Status.FOUND]
    assert impatient.steps.tolist() == [7]
    torch.testing.assert_close(impatient.counterfactuals, at(0.35))
    patient = run(at(0.0), predict=lambda points, rows: points[:, 0], goal=goal, rule=UnitGradient(0.5, patience=99))
    assert patient.statuses() == [Status.BEST_EFFORT]
