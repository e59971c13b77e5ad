r"""External: one run of somebody else's search, judged like any other candidate."""

from __future__ import annotations

import torch
from plane import Counting, at, plane, run
from torch import Tensor

from captum_dcf.search import Status
from captum_dcf.search.external import External


def test_what_the_attack_gives_is_judged_once():
    decode, asked = Counting(plane), []

    def attack(images: Tensor, rows: Tensor) -> Tensor:
        asked.append(rows.tolist())
        return images + torch.tensor([1.0, 0.0]) * (1 + rows[:, None])

    result = run(at(-1.0, -1.0, 2.0, -9.0), decode, searcher=External(attack))
    assert result.statuses() == [Status.STEP_LIMIT, Status.FOUND, Status.ALREADY_THERE, Status.STEP_LIMIT]
    assert result.steps.tolist() == [1, 1, 0, 1]
    torch.testing.assert_close(result.counterfactuals, at(0.0, 1.0, 2.0, -5.0))
    assert asked == [[0, 1, 3]]
    assert decode.examples == 4 + 3


def test_the_attack_is_given_the_inputs_not_their_reconstructions():
    seen = []

    def attack(images: Tensor, rows: Tensor) -> Tensor:
        seen.append(images.clone())
        return images + 1.0

    run(at(-1.0), lambda z: z - 0.3, searcher=External(attack))
    assert torch.equal(seen[0], at(-1.0))


def test_a_worse_image_does_not_replace_the_input():
    result = run(at(-1.0), searcher=External(lambda images, rows: images - 1.0))
    assert result.statuses() == [Status.STEP_LIMIT]
    assert torch.equal(result.counterfactuals, at(-1.0))


def test_what_is_not_finite_or_beyond_the_range_is_seen_where_it_is_judged():
    def attack(images: Tensor, rows: Tensor) -> Tensor:
        return torch.where(rows[:, None] == 0, torch.inf, images + 9.0)

    result = run(at(-1.0, -0.5), searcher=External(attack), data_range=(-1.0, 0.5))
    assert result.statuses() == [Status.NOT_FINITE, Status.FOUND]
    torch.testing.assert_close(result.counterfactuals[1], torch.tensor([0.5, 0.5]))
    assert result.counterfactuals.isfinite().all()


def test_one_that_enters_later_is_attacked_too():
    def attack(images: Tensor, rows: Tensor) -> Tensor:
        return images + 2.0

    start = at(-1.0, -9.0, -1.5, -1.1, -8.0)
    expected = run(start, searcher=External(attack))
    for window in (1, 2, 4):
        result = run(start, searcher=External(attack), internal_batch_size=window)
        torch.testing.assert_close(result.counterfactuals, expected.counterfactuals)
        assert torch.equal(result.status, expected.status)


def test_a_gradient_of_the_attack_is_left_behind():
    weight = torch.ones(1, requires_grad=True)
    result = run(at(-1.0), searcher=External(lambda images, rows: images + 2 * weight))
    assert not result.counterfactuals.requires_grad
    assert result.reached.all()
