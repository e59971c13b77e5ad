r"""Problem.evaluate: the one place where an image is judged, and what it asks of model, goal and decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from plane import Counting, Plane, Walk, at, first_coordinate, plane, problem, run, two_logits
from torch import Tensor

from captum_dcf.search import (
    Ascent,
    AtLeast,
    Coordinates,
    Goal,
    Options,
    Problem,
    ReachClass,
    Searcher,
    Status,
    UnitGradient,
    Verdict,
)
from captum_dcf.search import run as run_engine
from captum_dcf.search.coordinates import decode, encode
from captum_dcf.search.external import External
from captum_dcf.search.fista import Fista
from captum_dcf.search.line import Line
from captum_dcf.search.shells import Shells
from captum_dcf.search.term import SquaredDistance

ROWS = torch.arange(3)


# What an evaluation is


def test_an_evaluation_by_hand():
    found = problem(at(-1.0, 0.1, 1.0)).evaluate(at(-1.0, 0.1, 1.0), ROWS, gradient=True)
    scores = (5 * torch.tensor([-1.0, 0.1, 1.0])).sigmoid()
    torch.testing.assert_close(found.score, scores)
    assert found.reached.tolist() == [False, False, True]
    assert found.finite.all()
    # The cross-entropy of a sigmoid has the slope p - 1, and it is taken where the goal is reached too.
    torch.testing.assert_close(found.gradient, torch.stack((5 * (scores - 1), torch.zeros(3)), 1))
    assert problem(at(0.0)).evaluate(at(0.0), ROWS[:1]).gradient is None


def test_nothing_in_an_evaluation_carries_a_gradient():
    found = problem(at(-1.0, 0.1, 1.0)).evaluate(at(-1.0, 0.1, 1.0).requires_grad_(), ROWS, gradient=True)
    assert not any(value.requires_grad for value in vars(found).values())


@pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.enable_grad])
def test_it_takes_a_gradient_only_where_asked_whatever_the_mode_of_the_caller(grad_mode: Callable[[], Any]):
    modes: list[bool] = []

    def predict(points: Tensor, rows: Tensor) -> Tensor:
        modes.append(torch.is_grad_enabled())
        return two_logits(points, rows)

    with grad_mode():
        asked = problem(at(-1.0), predict=predict)
        assert asked.evaluate(at(-1.0), ROWS[:1], gradient=True).gradient is not None
        assert asked.evaluate(at(-1.0), ROWS[:1]).gradient is None
    assert modes == [True, False]


def test_the_weight_is_that_of_the_goal_not_of_the_terms():
    start = at(-1.0, 0.1, 1.0)
    asked, points = problem(start, terms=(SquaredDistance(start),)), start + 0.5
    weight = torch.tensor([0.0, 1.0, 3.0])
    alone = problem(start).evaluate(points, ROWS, gradient=True).gradient
    both = asked.evaluate(points, ROWS, gradient=True, weight=weight).gradient
    torch.testing.assert_close(both, weight[:, None] * alone + 2 * 0.5)


def test_a_term_is_told_the_rows_and_may_forbid_an_image():
    seen: list[Tensor] = []

    def forbids(images: Tensor, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(rows)
        return torch.zeros(len(rows)), images[:, 0] < 1.5

    asked = problem(at(0.0, 0.0, 0.0), terms=(forbids,))
    found = asked.evaluate(at(0.1, 1.0, 2.0), torch.tensor([2, 0, 2]))
    assert found.reached.tolist() == [False, True, False]
    assert found.score[2] > 0.9
    assert seen[0].tolist() == [2, 0, 2]
    # In a search an image that is not allowed does not end it.
    result = run(at(-1.0), searcher=Walk(), terms=(lambda i, p, r: (0 * i[:, 0], i[:, 0] > 2.5),))
    torch.testing.assert_close(result.end_latents, at(3.0))


def test_what_is_not_finite_reaches_nothing_and_leaves_the_gradients_of_others():
    def torn(z: Tensor) -> Tensor:
        return torch.where(z[:, :1] > 1, torch.inf, z)

    points = at(2.0, 0.1, -1.0)
    found = problem(points, torn, data_range=(-2.0, 2.0)).evaluate(points, ROWS, gradient=True)
    assert found.finite.tolist() == [False, True, True]
    assert not found.reached[0]
    expected = problem(points).evaluate(points[1:], ROWS[1:], gradient=True).gradient
    torch.testing.assert_close(found.gradient[1:], expected)


def test_what_is_not_finite_has_no_gradient():
    def infinite(points: Tensor, rows: Tensor) -> Tensor:
        return points[:, 0] + torch.where(rows == 0, torch.inf, 0.0)

    points = at(2.0, 0.1, -1.0)
    found = problem(points, predict=infinite, goal=AtLeast(3.0)).evaluate(points, ROWS, gradient=True)
    assert found.finite.tolist() == [False, True, True]
    assert not found.reached.any()
    assert found.gradient.tolist() == [[0.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]


def test_c18_outputs_of_minus_infinity_are_searched():
    def masked(points: Tensor, rows: Tensor) -> Tensor:
        ruled_out = torch.full_like(points[:, :1], -torch.inf)
        return torch.cat((two_logits(points, rows), ruled_out), 1)

    for softening in (0.0, 1.5):
        result = run(at(-1.0), predict=masked, softening=softening)
        assert result.statuses() == [Status.FOUND]
        torch.testing.assert_close(result.counterfactuals, at(0.5))


def test_a_class_that_is_ruled_out_itself_is_not_finite():
    def masked(points: Tensor, rows: Tensor) -> Tensor:
        return torch.stack((points[:, 0], torch.full_like(points[:, 0], -torch.inf)), 1)

    assert run(at(-1.0), predict=masked).statuses() == [Status.NOT_FINITE]


# Pixels and their range


def test_r1_pixels_almost_at_a_bound_are_put_on_it_in_every_search():
    decoded = torch.tensor([[-0.5, 5e-5, 2e-4, 0.5, 1 - 2e-4, 1 - 5e-5, 1.5]])
    expected = torch.tensor([[0.0, 0.0, 2e-4, 0.5, 1 - 2e-4, 1.0, 1.0]])
    assert torch.equal(decode(Plane(data_range=(0.0, 1.0)), decoded, decoded)[0], expected)
    wide = decoded * 10 - 5
    torch.testing.assert_close(decode(Plane(data_range=(-5.0, 5.0)), wide, wide)[0], expected * 10 - 5)
    assert torch.equal(decode(Plane(), decoded, decoded)[0], decoded)
    start = torch.tensor([[0.2, 0.25]])
    for searcher in _searchers():
        result = run(
            start, lambda z: torch.cat((z[:, :1], z[:, 1:] - 0.24996), 1), searcher=searcher, data_range=(0, 1)
        )
        assert result.counterfactuals[0, 1] in (0.0, *result.counterfactuals[result.counterfactuals > 1e-4])


def test_a_pixel_at_the_bound_keeps_its_gradient():
    # Decoded to 1.8 and clamped to 1, where a clamp's own gradient would be zero.
    result = run(at(-1.0), decode=lambda z: z - 0.8, data_range=(-1.0, 1.0))
    assert result.reconstructions[0, 0] == -1
    assert result.statuses() == [Status.FOUND]


@pytest.mark.parametrize("refine", [False, True])
def test_what_is_returned_is_what_the_model_saw(refine: bool):
    predict = Counting(two_logits)
    start = at(-0.8, -0.1, -0.4)
    kept = {"encode": lambda x: x / 2, "data_range": (-0.7, 0.46)}
    result = run(start, lambda z: 2 * z, predict, refine=refine, **kept)
    assert result.statuses() == [Status.FOUND] * 3
    seen = torch.cat(predict.batches)
    for image in result.counterfactuals:
        assert (seen == image).all(1).any()
    assert (seen[len(start) :] >= -0.7).all()
    assert (seen <= 0.46).all()
    assert result.counterfactuals[:, 0].max() == 0.46 or refine


def test_only_free_coordinates_have_a_gradient():
    def predict(points: Tensor, rows: Tensor) -> Tensor:
        return two_logits(points.sum(1, keepdim=True), rows)

    points = torch.randn(3, 4)
    whole = problem(points, predict=predict).evaluate(points, ROWS, gradient=True).gradient
    for free in (slice(1, 3), torch.tensor([2, 1])):
        part = problem(points, predict=predict, free=free).evaluate(points, ROWS, gradient=True).gradient
        torch.testing.assert_close(part, whole * torch.tensor([0.0, 1.0, 1.0, 0.0]))


# What models without gradient are told


def test_an_output_without_gradient_is_refused():
    with pytest.raises(ValueError, match="differentiably"):
        run(at(-1.0), predict=lambda x, rows: two_logits(x.detach(), rows))


def test_an_output_that_depends_on_parameters_only_is_refused():
    weight = torch.ones(1, requires_grad=True)
    with pytest.raises(ValueError, match="differentiably"):
        run(at(-1.0), predict=lambda x, rows: two_logits(x.detach() * weight, rows))


def test_a_term_does_not_hide_that_the_output_has_no_gradient():
    start = at(-1.0)
    with pytest.raises(ValueError, match=r"forward_func.*differentiably"):
        run(start, predict=lambda x, rows: two_logits(x.detach(), rows), terms=(SquaredDistance(start),))


def test_searches_that_need_no_gradient_ask_for_none():
    result = run(at(-1.0), predict=lambda x, rows: two_logits(x.detach(), rows), searcher=Walk())
    assert result.statuses() == [Status.FOUND]


# What goals of one's own are told


def _searchers() -> list[Searcher]:
    return [
        Ascent(UnitGradient(0.5)),
        Line(0.5),
        Shells(width=0.5, outermost=3.0, samples=4, shells=4),
        Fista(beta=0.01, lr=0.2, iterations=4, runs=2, c=1.0),
        External(lambda images, rows: images + 1.0),
    ]


each_searcher = pytest.mark.parametrize("searcher", _searchers(), ids=lambda searcher: type(searcher).__name__)


def _goal_that(change: Callable[[Verdict], Any]) -> Goal:
    class Mine(AtLeast):
        def judge(self, output: Tensor, rows: Tensor, softening: float = 0.0) -> Any:
            return change(super().judge(output, rows, softening))

    return Mine(0.5)


@each_searcher
@pytest.mark.parametrize("name", ["loss", "score", "reached"])
@pytest.mark.parametrize("wrong", ["column", "scalar", "none", "list"])
def test_c17_a_goal_gives_one_tensor_entry_per_example(searcher: Searcher, name: str, wrong: str):
    makes = {
        "column": lambda value: value.unsqueeze(1),
        "scalar": lambda value: value[0],
        "none": lambda value: None,
        "list": lambda value: value.tolist(),
    }
    goal = _goal_that(lambda verdict: verdict._replace(**{name: makes[wrong](getattr(verdict, name))}))
    received = {"column": r"\(2, 1\)", "scalar": r"\(\)", "none": "NoneType", "list": "list"}[wrong]
    with pytest.raises((ValueError, TypeError), match=f"Mine.judge .*({name}.*{received}|{received}.*{name})"):
        run(at(-1.0, -2.0), predict=first_coordinate, goal=goal, searcher=searcher)


@each_searcher
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda verdict: verdict._replace(reached=verdict.reached.float()), "reached .*bool.*float32"),
        (lambda verdict: verdict._replace(reached=verdict.reached.long()), "reached .*bool.*int64"),
        (lambda verdict: verdict._replace(score=verdict.score.long()), "score .*int64"),
        (lambda verdict: verdict._replace(loss=verdict.loss.detach().long()), "loss .*int64"),
        (lambda verdict: None, "Verdict.*NoneType"),
        (lambda verdict: verdict.loss, "Verdict.*Tensor"),
        (lambda verdict: verdict[:2], "Verdict.*tuple"),
    ],
)
def test_c17_a_goal_gives_a_verdict(searcher: Searcher, change: Callable[[Verdict], Any], says: str):
    with pytest.raises(TypeError, match=f"Mine.judge .*{says}"):
        run(at(-1.0, -2.0), predict=first_coordinate, goal=_goal_that(change), searcher=searcher)


def test_c17_a_plain_tuple_is_a_verdict_too():
    result = run(at(-1.0, -2.0), predict=first_coordinate, goal=_goal_that(tuple))
    assert result.reached.all()


@pytest.mark.parametrize(
    ("agrees", "error", "says"),
    [
        (lambda *asked: True, TypeError, "bool"),
        (lambda output, other, rows: (output == other)[:, None], ValueError, r"\(2, 1\)"),
        (lambda output, other, rows: (output == other).long(), TypeError, "int64"),
    ],
)
def test_c17_whether_outputs_agree_is_one_bool_per_example(agrees: Any, error: type[Exception], says: str):
    goal = _goal_that(lambda verdict: verdict)
    object.__setattr__(goal, "agrees", agrees)
    with pytest.raises(error, match=f"Mine.agrees .*{says}"):
        run(at(-1.0, -2.0), predict=first_coordinate, goal=goal)


@each_searcher
def test_c10_a_goal_that_needs_gradients_leaves_none_in_the_result(searcher: Searcher):
    class Mine(Goal):
        bound = torch.tensor(0.5, requires_grad=True)

        def judge(self, output: Tensor, rows: Tensor, softening: float = 0.0) -> Verdict:
            over = output - self.bound
            return Verdict(-over, over, over >= 0)

    result = run(at(-1.0, -2.0, 3.0), predict=first_coordinate, goal=Mine(), searcher=searcher)
    assert not any(value.requires_grad for value in vars(result).values() if isinstance(value, Tensor))
    assert Mine.bound.grad is None


# What coordinates are handed and asked


def test_a_plane_has_what_a_search_needs_of_coordinates():
    assert isinstance(Plane(), Coordinates)
    assert not isinstance(object(), Coordinates)


@pytest.mark.parametrize("data_range", [None, (-1.0, 1.0)])
def test_coordinates_may_write_into_what_they_are_given(data_range: tuple[float, float] | None):
    def in_place(values: Tensor) -> Tensor:
        return values.mul_(1.0).add_(0.0)

    start = at(-0.5, 0.1)
    result = run(start, in_place, encode=lambda x: x.sub_(0.25), data_range=data_range)
    assert torch.equal(result.inputs, at(-0.5, 0.1))
    torch.testing.assert_close(result.start_latents, at(-0.5, 0.1) - 0.25)
    torch.testing.assert_close(result.end_latents, result.counterfactuals)


@pytest.mark.parametrize("data_range", [None, (-1.0, 1.0)])
def test_an_encoder_of_the_result_may_write_into_its_images(data_range: tuple[float, float] | None):
    images = at(-0.5, 0.1)
    encode(Plane(encode=lambda x: x.sub_(0.25), data_range=data_range), images)
    assert torch.equal(images, at(-0.5, 0.1))


def test_images_beyond_the_range_are_encoded_from_its_bounds():
    assert encode(Plane(data_range=(-1.0, 1.0)), at(-3.0, 0.5)).tolist() == [[-1.0, 0.25], [0.5, 0.25]]


@pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.enable_grad])
def test_an_encoder_that_needs_gradients_enables_them(grad_mode: Callable[[], Any]):
    modes: list[bool] = []

    def inverted(x: Tensor) -> Tensor:
        modes.append(torch.is_grad_enabled())
        with torch.enable_grad():
            z = torch.zeros_like(x).requires_grad_()
            [slope] = torch.autograd.grad((z - x).square().sum(), z)
        return z - slope / 2

    with grad_mode():
        points = encode(Plane(encode=inverted), at(0.5))
    torch.testing.assert_close(points, at(0.5))
    assert not points.requires_grad
    assert modes == [False]


def test_images_have_the_precision_of_the_inputs():
    for dtype in (torch.float16, torch.float64):
        images, finite, *_ = decode(Plane(lambda z, dtype=dtype: z.to(dtype)), at(0.5), at(0.0))
        assert finite.all()
        assert images.dtype == torch.float32


@pytest.mark.parametrize(
    ("function", "error", "says"),
    [
        (lambda z: None, TypeError, "Plane.decode .*NoneType"),
        (lambda z: (z, z), TypeError, "Plane.decode .*tuple"),
        (lambda z: z[:, :1], ValueError, r"Plane.decode .*\(1,\).*\(2,\)"),
        (lambda z: z[:1], ValueError, r"Plane.decode "),
        (lambda z: z.detach(), ValueError, "Plane.decode .*differentiably"),
        (lambda z: z @ torch.zeros(3, 2), ValueError, r"Plane cannot decode .*\(2, 2\).*float32"),
    ],
)
def test_c27_a_decoder_is_told_what_is_wrong_with_it(function: Callable[..., Any], error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        run(at(-1.0, -2.0), decode=function)


@pytest.mark.parametrize(
    ("function", "error", "says"),
    [
        (lambda x: (x, x), TypeError, "Plane.encode .*tuple"),
        (lambda x: x[:, None], ValueError, r"Plane.encode .*\(2, D\).*\(2, 1, 2\)"),
        (lambda x: x[:1], ValueError, r"Plane.encode .*\(2, D\).*\(1, 2\)"),
        (lambda x: x @ torch.zeros(3, 2), ValueError, r"Plane cannot encode .*\(2, 2\).*float32"),
    ],
)
def test_c27_an_encoder_is_told_what_is_wrong_with_it(function: Callable[..., Any], error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        run(at(-1.0, -2.0), encode=function)


OWN_ERRORS = [
    KeyError("k"),
    MemoryError(),
    torch.cuda.OutOfMemoryError("m"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OWN_ERRORS, ids=repr)
@pytest.mark.parametrize("of", ["encode", "decode"])
def test_errors_of_an_encoders_or_decoders_own_arrive_as_they_are(of: str, error: Exception):
    def broken(values: Tensor) -> Tensor:
        raise error

    with pytest.raises(type(error)) as caught:
        run(at(-1.0), **{of: broken})
    assert caught.value is error


def test_a_goal_sees_what_the_model_gave_for_exactly_that_image():
    found = problem(at(-1.0, 0.1, 1.0), plane).evaluate(at(-1.0, 0.1, 1.0), ROWS)
    assert torch.equal(ReachClass(1, 0.9).judge(found.output, ROWS).reached, found.reached)


# What lies beyond the range


def test_a_pixel_beyond_the_range_is_not_pushed_further_and_is_pulled_back():
    # Descent pushes both coordinates up; the first is decoded to 0.5 beyond the range of length 1, the second within.
    points = torch.tensor([[1.5, 0.5]], requires_grad=True)
    images, _, overshoot, _ = decode(Plane(data_range=(0.0, 1.0)), points, points)
    assert overshoot.tolist() == [0.5]
    [gradient] = torch.autograd.grad((images * torch.tensor([-3.0, -4.0])).sum(), points)
    # Nothing of -3 is left, and the gradient of length 5 pulls back by a half of it.
    torch.testing.assert_close(gradient, torch.tensor([[2.5, -4.0]]))


def test_a_pixel_beyond_the_range_may_go_back():
    points = torch.tensor([[-0.2, 0.5]], requires_grad=True)
    images, *_ = decode(Plane(data_range=(0.0, 1.0)), points, points)
    [gradient] = torch.autograd.grad((images * torch.tensor([-3.0, -4.0])).sum(), points)
    torch.testing.assert_close(gradient, torch.tensor([[-3.0 - 0.2 * 5.0, -4.0]]))


def test_the_overshoot_is_the_largest_of_the_pixels_as_a_share_of_the_range():
    points = torch.tensor([[0.0, 3.5], [-2.0, 2.5], [0.1, 0.2]])
    assert decode(Plane(data_range=(-1.0, 3.0)), points, points).overshoot.tolist() == [0.125, 0.25, 0.0]
    assert decode(Plane(), points, points).overshoot.tolist() == [0.0] * 3


def test_a_search_that_would_leave_the_range_comes_back():
    # The way to the goal is the second coordinate, but the gradient of the first, which is saturated, is far larger.
    def predict(images: Tensor, rows: Tensor) -> Tensor:
        return torch.stack((torch.zeros_like(images[:, 0]), 30 * images[:, 0] + 5 * images[:, 1] - 30), dim=1)

    result = run(torch.tensor([[0.9, -1.0]]), predict=predict, data_range=(-1.0, 1.0), max_steps=40)
    assert result.statuses() == [Status.FOUND]
    assert result.overshoot.item() < 0.6


# The support floor


class Hilly(Plane):
    r"""A plane with the density of a standard normal around (0, 0), told by the decode too where asked."""

    def __init__(self, tells: bool = True, **settings: Any) -> None:
        super().__init__(**settings)
        if tells:
            self.decode_with_log_prob = lambda z: (self.decode(z), self.log_prob(self.decode(z)))

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)


def held(start: Tensor, floor: float, tells: bool = True, **settings: Any) -> Problem:
    return replace(problem(start), coordinates=Hilly(tells, **settings), measured="log_prob", floor=floor)


def density(x: float, y: float = 0.25) -> float:
    return float(Hilly().log_prob(torch.tensor([[x, y]])))


@pytest.mark.parametrize("tells", [True, False])
def test_nothing_below_the_floor_reaches_the_goal(tells: bool):
    # The goal is reached from 0.44 on.
    found = held(at(-1.0), density(1.0), tells).evaluate(at(0.3, 0.6, 0.9, 1.1), torch.zeros(4, dtype=torch.int64))
    assert found.reached.tolist() == [False, True, True, False]


def test_below_the_floor_the_gradient_climbs_the_density():
    asked = held(at(-1.0), density(1.0))
    found = asked.evaluate(at(-2.0, 0.3, 1.5), torch.zeros(3, dtype=torch.int64), gradient=True)
    # Of minus log q the gradient is the point itself.
    torch.testing.assert_close(found.gradient[[0, 2]], at(-2.0, 1.5))
    plain = problem(at(-1.0)).evaluate(at(0.3), ROWS[:1], gradient=True)
    torch.testing.assert_close(found.gradient[1:2], plain.gradient)


def test_the_density_that_counts_is_that_of_the_clamped_image():
    # Decoded to 1.5 and clamped to 0.9: the image itself is above the floor.
    asked = held(at(-1.0), density(1.0), data_range=(-0.9, 0.9))
    assert asked.evaluate(at(1.5), ROWS[:1]).reached.tolist() == [True]
    # Decoded to 0 and clamped to 2: it is below.
    asked = held(at(-1.0), density(1.0), data_range=(2.0, 3.0))
    assert asked.evaluate(at(0.0), ROWS[:1]).reached.tolist() == [False]


def test_a_search_climbs_back_into_the_support():
    start = torch.tensor([[-2.5, 0.0], [-0.5, 0.0]])
    asked = held(start, density(1.0))
    result = run_engine(asked, Ascent(UnitGradient(0.3)), Options(), 50)
    assert result.statuses() == [Status.FOUND] * 2
    assert (result.end_log_probs >= density(1.0)).all()
    torch.testing.assert_close(result.start_log_probs, Hilly().log_prob(start))


def test_without_a_density_long_points_are_below_the_floor():
    asked = replace(problem(at(-1.0)), measured="latent_length", floor=-1.0)
    found = asked.evaluate(at(0.3, 0.6, 1.1), torch.zeros(3, dtype=torch.int64), gradient=True)
    assert found.reached.tolist() == [False, True, False]
    length = at(1.1).norm()
    torch.testing.assert_close(found.gradient[2:], at(1.1) / length)
