r"""Line: equal steps along one gradient."""

from __future__ import annotations

import pytest
import torch
from plane import Counting, Predict, at, hill, plane, run, two_logits
from torch import Tensor

from captum_dcf.search import Status
from captum_dcf.search.line import Line


def _turning(points: Tensor, rows: Tensor) -> Tensor:
    # At the start uphill is along both axes, farther on along the second only.
    x, y = points.unbind(1)
    return torch.stack((torch.zeros_like(x), 5 * (torch.where(x < 0.3, x, 0.3 * torch.ones_like(x)) + y - 1)), 1)


def test_all_candidates_lie_on_the_line_of_the_first_gradient():
    decode = Counting(plane)
    result = run(torch.tensor([[0.0, 0.0]]), decode, _turning, searcher=Line(0.2), keep_path=True)
    assert result.statuses() == [Status.FOUND]
    steps = torch.arange(result.steps.item() + 1)[:, None]
    torch.testing.assert_close(result.path[0], steps * 0.2 * torch.tensor([[0.5**0.5, 0.5**0.5]]))
    # One more decode, of the start, with a gradient.
    assert decode.examples == 2 + result.steps.item()


@pytest.mark.parametrize(("slope", "steps"), [(1.0, 3), (1e-20, 3), (1e20, 3)])
def test_steps_have_their_length_whatever_the_gradient(slope: float, steps: int):
    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return gradient * slope

    result = run(at(-1.0), predict=lambda x, rows: two_logits(Scaled.apply(x), rows), searcher=Line(0.5))
    assert result.steps.tolist() == [steps]
    torch.testing.assert_close(result.counterfactuals, at(0.5))


def test_the_length_may_be_a_function_of_the_starts():
    result = run(at(-1.0, -2.0), searcher=Line(lambda z: z.norm(dim=1).mean() * 0 + 0.5), keep_path=True)
    assert result.steps.tolist() == [3, 5]


def test_refining_brings_it_down_to_the_threshold():
    result = run(at(-1.0), searcher=Line(0.5), refine=True)
    assert 0 <= result.counterfactuals[0, 0] - torch.tensor(9.0).log() / 5 <= 0.5 / 64 + 1e-6


def test_the_best_of_a_line_over_a_hill():
    result = run(at(-1.3), predict=hill, searcher=Line(0.7), max_steps=6)
    assert result.statuses() == [Status.STEP_LIMIT]
    torch.testing.assert_close(result.counterfactuals[0, 0], torch.tensor(-1.3 + 2 * 0.7 * 0.9820), atol=0.02, rtol=0)


def _flat(points: Tensor, rows: Tensor) -> Tensor:
    return two_logits(points.clamp_min(0), rows)


def _steep(points: Tensor, rows: Tensor) -> Tensor:
    return two_logits(points - 1 + (points - points.detach()).sqrt(), rows)


@pytest.mark.parametrize(("predict", "status"), [(_flat, Status.STALLED), (_steep, Status.NOT_FINITE)])
def test_a_start_without_a_line_ends_at_once(predict: Predict, status: Status):
    result = run(at(-1.0), predict=predict, searcher=Line(0.5))
    assert result.statuses() == [status]
    assert result.steps.tolist() == [0]


def test_a_line_that_leaves_the_finite_numbers_ends_there_with_its_best():
    result = run(at(-2.0, -1.0), lambda z: torch.where(z[:, :1] > -0.9, torch.inf, z), searcher=Line(0.5))
    assert result.statuses() == [Status.NOT_FINITE] * 2
    assert result.steps.tolist() == [3, 1]
    torch.testing.assert_close(result.counterfactuals, at(-1.0, -1.0))
