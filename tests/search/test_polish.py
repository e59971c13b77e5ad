r"""refine=True: the last step, halved back to the threshold of the goal."""

from __future__ import annotations

import pytest
import torch
from plane import MIXED, Counting, at, mixed_decode, plane, run, two_logits
from torch import Tensor

from captum_dcf.search import Status, UnitGradient

THRESHOLD = torch.tensor(9.0).log() / 5  # where class 1 has a probability of 0.9


def test_refining_brings_the_score_down_to_the_threshold():
    start = at(-1.0, -0.7, 0.3, 2.0)
    plain, refined = run(start), run(start, refine=True)
    assert refined.statuses() == plain.statuses() == [Status.FOUND] * 3 + [Status.ALREADY_THERE]
    assert torch.equal(refined.steps, plain.steps)
    found = slice(0, 3)
    assert (refined.end_scores[found] > 0.9).all()
    assert (refined.end_scores[found] < plain.end_scores[found]).all()
    # A 64th of the step of 0.5 at most beyond the threshold.
    assert (refined.counterfactuals[found, 0] - THRESHOLD <= 0.5 / 64 + 1e-6).all()
    torch.testing.assert_close(refined.end_scores[found], (5 * refined.counterfactuals[found, 0]).sigmoid())
    assert torch.equal(refined.end_latents, refined.counterfactuals)
    assert torch.equal(refined.counterfactuals[3], start[3])


def test_refining_costs_six_decodes_for_each_one_found():
    decode = Counting(mixed_decode)
    result = run(MIXED, decode=decode, rule=UnitGradient(1.5), max_steps=9, refine=True)
    found = (result.status == Status.FOUND).sum()
    assert decode.examples == len(MIXED) + result.steps.sum() + 6 * found


@pytest.mark.parametrize("window", [None, 2])
def test_where_nothing_was_found_nothing_is_refined(window: int | None):
    decode = Counting(plane)
    result = run(at(-9.0, 2.0, -8.0), decode=decode, max_steps=3, refine=True, internal_batch_size=window)
    assert result.statuses() == [Status.STEP_LIMIT, Status.ALREADY_THERE, Status.STEP_LIMIT]
    assert all(len(batch) for batch in decode.batches)


def test_what_was_found_by_the_reconstruction_is_left_as_it_is():
    result = run(at(0.3, -1.0), decode=lambda z: z + 1, refine=True)
    assert result.steps[0] == 0
    assert torch.equal(result.counterfactuals[0], at(0.3)[0] + 1)


def test_an_unreconstructed_one_that_reached_the_goal_is_refined_too():
    plain, refined = (
        run(at(-0.1), lambda z: -z, search_unreconstructed=True, refine=refine) for refine in (False, True)
    )
    assert refined.statuses() == [Status.NOT_RECONSTRUCTED]
    assert 0.9 < refined.end_scores < plain.end_scores


def test_refining_never_keeps_what_is_not_finite():
    # On the way back from the one found lies a gap, and infinity would be clamped to the brightest of images.
    def gapped(points: Tensor) -> Tensor:
        return torch.where((points[:, :1] > 0.45) & (points[:, :1] < 0.8), torch.inf, points)

    for data_range in (None, (-1.0, 1.0)):
        result = run(at(-0.1), decode=gapped, rule=UnitGradient(1.0), refine=True, data_range=data_range)
        assert result.statuses() == [Status.FOUND]
        assert result.counterfactuals.isfinite().all()
        torch.testing.assert_close(gapped(result.end_latents), result.counterfactuals)
        torch.testing.assert_close(two_logits(result.counterfactuals, None).softmax(1)[:, 1], result.end_scores)
        assert (result.end_scores > 0.9).all()


def test_refining_halves_back_to_where_the_last_step_came_from():
    # The first step, to 1.9, ends where the gradient is dead. It is taken back by half, to 0.9, which is found. From
    # there the way back leads to -0.1, not on to 1.9.
    def dead(points: Tensor) -> Tensor:
        return torch.where(points > 1.2, torch.full_like(points, -1.0), points)

    plain, refined = (run(at(-0.1), dead, rule=UnitGradient(2.0), refine=refine) for refine in (False, True))
    torch.testing.assert_close(plain.end_latents[0, 0], torch.tensor(0.9))
    assert 0 <= refined.end_latents[0, 0] - THRESHOLD <= 1.0 / 64 + 1e-6


def test_the_path_ends_with_the_refined_image():
    result = run(at(-1.0, 0.1, 2.0), refine=True, keep_path=True)
    for row in (0, 1):
        assert torch.equal(result.path[row][-1], result.counterfactuals[row])
        assert len(result.path[row]) == result.steps[row] + 2
    assert len(result.path[2]) == 0
