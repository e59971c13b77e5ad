r"""How searches on a plane end, the work they do, and how they step back."""

from __future__ import annotations

import pytest
import torch
from plane import MIXED, Counting, at, mixed_decode, overflowing, plane, run, two_logits
from torch import Tensor

from captum_dcf.search import (
    Adam,
    AtLeast,
    Problem,
    ReachClass,
    Status,
    StepRule,
    UnitGradient,
    ascend,
)

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


def test_a_step_that_overflows_is_halved_until_it_does_not():
    start, rule = at(-0.1), UnitGradient(4.0)
    # The step itself leaves the ball in which decodes are finite, and with it every later one would.
    stepped, _ = rule.step(start, torch.tensor([[-1.0, 0.0]]), rule.start(start))
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


def test_halvings_are_counted_from_the_last_good_step():
    # Every other half unit is infinite. The search is held up more than twenty times, and never for long.
    class OneAttempt(UnitGradient):
        def again(self, z: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            return z, state

    decode = Counting(lambda z: torch.where(z[:, :1] % 1 > 0.5, torch.inf, z))
    result = run(at(-60.0), decode=decode, rule=OneAttempt(0.75), max_steps=500)
    assert result.statuses() == [Status.FOUND]
    assert (torch.cat(decode.batches)[:, 0] % 1 > 0.5).sum() > 21


def test_infinite_latents_that_do_not_move_do_no_harm():
    # As of a generator that takes the logit of pixels, where one is black.
    def decode(z: Tensor) -> Tensor:
        return torch.stack((z[:, 0], z[:, 1].sigmoid()), dim=1)

    start = torch.tensor([[-0.1, 0.0]])
    kept, latents = {"decode": decode, "rule": UnitGradient(4.0)}, torch.tensor([[-0.1, -torch.inf]])
    far, near = (run(start, latents=latents, refine=refine, **kept) for refine in (False, True))
    assert far.statuses() == near.statuses() == [Status.FOUND]
    assert 0.4394 < near.end_latents[0, 0] < 0.6 < far.end_latents[0, 0]


def test_latents_that_are_not_a_number_end_a_search():
    nan = torch.full((1, 2), torch.nan)
    result = run(at(-1.0), decode=lambda z: torch.nan_to_num(z, nan=-1.0), latents=nan, rule=Adam(0.1), max_steps=500)
    assert result.steps.item() < 30


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
        direction = gradient / gradient.norm(dim=1, keepdim=True)
        return z - state["length"][:, None] * direction, {"length": state["length"] / 2}


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
