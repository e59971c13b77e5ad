r"""Goals: what they mean, by hand and by torch's distributions, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from plane import judge
from torch import Tensor
from torch.distributions import Categorical
from torch.utils._python_dispatch import TorchDispatchMode

from captum_dcf.search import AtLeast, AtMost, Goal, LeaveClass, Near, ReachClass, Verdict

LOGITS = torch.tensor([[0.0, 2.0, -1.0], [6.0, 0.0, 0.0], [-3.0, 1.0, 4.0], [5.0, 5.0, -20.0]])
LABELS = torch.tensor([1, 0, 2, 0])
OF_CLASSES = [ReachClass, LeaveClass]


# Classes


def test_reach_class_is_the_log_probability_of_a_categorical():
    loss, score, reached = judge(ReachClass(LABELS, confidence=0.9), LOGITS)
    expected = Categorical(logits=LOGITS).log_prob(LABELS)
    torch.testing.assert_close(loss, -expected)
    torch.testing.assert_close(score, expected.exp())
    # By hand: e²/(1 + e² + 1/e) = 0.84, e⁶/(e⁶ + 2) = 0.995, e⁴/(e⁴ + e + e⁻³) = 0.95, one half.
    assert reached.tolist() == [False, True, True, False]


@pytest.mark.parametrize("kind", OF_CLASSES)
def test_one_label_for_all_is_the_same_as_that_label_for_each(kind: type[ReachClass]):
    each = judge(kind(torch.full((4,), 2), 0.6), LOGITS)
    for one in (2, torch.tensor(2), np.int64(2)):
        for received, expected in zip(judge(kind(one, 0.6), LOGITS), each):
            torch.testing.assert_close(received, expected)


def test_leave_class_is_the_probability_of_all_others_together():
    labels = torch.tensor([1, 0, 1, 0])
    loss, score, reached = judge(LeaveClass(labels, confidence=0.9), LOGITS)
    rest = 1 - Categorical(logits=LOGITS.double()).log_prob(labels).exp()
    torch.testing.assert_close(score.double(), rest, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss.double(), -rest.log(), rtol=1e-5, atol=1e-6)
    assert reached.tolist() == [False, False, True, False]


def test_leaving_keeps_its_gradient_where_the_class_is_all_but_certain():
    logits = torch.tensor([[60.0, 0.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(judge(LeaveClass(0), logits).loss.sum(), logits)
    # -log(p₁ + p₂) = logsumexp(all) - logsumexp(others), whose gradients are (1, 0, 0) and (0, ½, ½).
    torch.testing.assert_close(gradient, torch.tensor([[1.0, -0.5, -0.5]]))


def test_below_one_half_a_class_must_also_be_the_most_likely():
    logits = torch.tensor([[0.35, 0.40, 0.25], [0.25, 0.35, 0.40]]).log()
    assert judge(ReachClass(0, 0.3), logits).reached.tolist() == [False, False]
    assert judge(ReachClass(1, 0.3), logits).reached.tolist() == [True, False]
    # The others together exceed the confidence, but the class still leads.
    assert judge(LeaveClass(1, 0.5), logits).reached.tolist() == [False, True]


def test_confidence_has_to_be_exceeded():
    # Two equal logits are one half each, exactly; of four, the other three are three quarters.
    assert not judge(ReachClass(0, 0.5), torch.zeros(1, 2)).reached.item()
    even = torch.tensor([[0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    share = judge(LeaveClass(1, 0.5), even).score.item()
    assert not judge(LeaveClass(1, share), even).reached.item()
    assert judge(LeaveClass(1, math.nextafter(share, 0)), even).reached.item()


@pytest.mark.parametrize("kind", OF_CLASSES)
def test_softening_takes_the_cross_entropy_at_a_temperature_of_so_many_deviations(kind: type[ReachClass]):
    temperature = (1.5 * LOGITS.std(1, keepdim=True)).clamp_min(1)
    softened, plain = judge(kind(LABELS, 0.9), LOGITS, softening=1.5), judge(kind(LABELS, 0.9), LOGITS)
    torch.testing.assert_close(softened.loss, judge(kind(LABELS, 0.9), LOGITS / temperature).loss)
    # It leads elsewhere, but to the same place.
    assert torch.equal(softened.score, plain.score)
    assert torch.equal(softened.reached, plain.reached)


def test_softening_leaves_logits_alone_that_are_close_together():
    close = LOGITS / 100
    torch.testing.assert_close(judge(ReachClass(1), close, softening=1.5).loss, judge(ReachClass(1), close).loss)


@pytest.mark.parametrize("softening", [0.0, 1.5])
@pytest.mark.parametrize("kind", OF_CLASSES)
def test_c18_a_class_that_is_ruled_out_is_as_if_it_were_not_there(kind: type[ReachClass], softening: float):
    masked = torch.tensor([[0.0, -torch.inf, 3.0, -5.0], [40.0, -torch.inf, 3.0, -5.0]], requires_grad=True)
    without = masked.detach()[:, [0, 2, 3]].requires_grad_()
    received, expected = judge(kind(2), masked, softening), judge(kind(1), without, softening)
    for one, other in zip(received, expected):
        torch.testing.assert_close(one, other)
    (gradient,) = torch.autograd.grad(received.loss.sum(), masked)
    (gradient_without,) = torch.autograd.grad(expected.loss.sum(), without)
    torch.testing.assert_close(gradient[:, [0, 2, 3]], gradient_without)
    assert (gradient[:, 1] == 0).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("kind", OF_CLASSES)
def test_labels_of_any_integer_kind(kind: type[ReachClass], dtype: torch.dtype):
    output, labels = torch.randn(3, 4), torch.tensor([0, 3, 1])
    for received, expected in zip(judge(kind(labels.to(dtype)), output), judge(kind(labels), output)):
        assert torch.equal(received, expected)


@pytest.mark.parametrize("kind", [ReachClass, LeaveClass, AtLeast, Near])
def test_goals_made_in_inference_mode_can_be_searched_for(kind: type[ReachClass]):
    with torch.inference_mode():
        values = torch.tensor([1, 0, 2, 0])
        goal = kind(values if issubclass(kind, (ReachClass, LeaveClass)) else values.float())
    output = (LOGITS if goal.of_classes else LOGITS[:, 0]).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(judge(goal, output).loss.sum(), output)
    assert gradient.isfinite().all()


def test_c9_a_confidence_that_the_output_cannot_tell_from_one_is_refused():
    # In single precision numbers below one are 6e-8 apart.
    with pytest.raises(ValueError, match=r"0\.999999999 .*float32"):
        ReachClass(1, 1 - 1e-9).check(LOGITS)
    ReachClass(1, 1 - 1e-9).check(LOGITS.double())
    close = ReachClass(1, 1 - 6e-8)
    close.check(LOGITS)
    assert judge(close, torch.tensor([[0.0, 100.0]])).reached.item()


# Values


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize(
    ("goal", "loss", "score", "reached"),
    [
        (AtLeast(2.0), [1.0, 0.0, -1.5], [-1.0, 0.0, 1.5], [False, True, True]),
        (AtMost(2.0), [-1.0, 0.0, 1.5], [1.0, 0.0, -1.5], [True, True, False]),
        (Near(2.0, tolerance=1.0), [1.0, 0.0, 2.25], [-1.0, 0.0, -1.5], [True, True, False]),
        (AtLeast(torch.tensor([0.0, 3.0, 4.0])), [-1.0, 1.0, 0.5], [1.0, -1.0, -0.5], [True, False, False]),
        (AtMost(torch.tensor([0.0, 3.0, 4.0])), [1.0, -1.0, -0.5], [-1.0, 1.0, 0.5], [False, True, True]),
        (Near(torch.tensor([0.0, 3.0, 4.0]), 0.75), [1.0, 1.0, 0.25], [-1.0, -1.0, -0.5], [False, False, True]),
        (AtMost(torch.tensor(2.0)), [-1.0, 0.0, 1.5], [1.0, 0.0, -1.5], [True, True, False]),
        (AtLeast(2), [1.0, 0.0, -1.5], [-1.0, 0.0, 1.5], [False, True, True]),
        (AtLeast(np.float32(2)), [1.0, 0.0, -1.5], [-1.0, 0.0, 1.5], [False, True, True]),
        (AtLeast(Fraction(2)), [1.0, 0.0, -1.5], [-1.0, 0.0, 1.5], [False, True, True]),
        (AtLeast(torch.tensor([0, 3, 4])), [-1.0, 1.0, 0.5], [1.0, -1.0, -0.5], [True, False, False]),
    ],
)
def test_value_goals_by_hand(
    goal: Goal, loss: list[float], score: list[float], reached: list[bool], shape: tuple[int, ...]
):
    output = torch.tensor([1.0, 2.0, 3.5]).view(shape)
    goal.check(output)
    goal.check_length(3)
    verdict = judge(goal, output)
    assert verdict.loss.tolist() == loss
    assert verdict.score.tolist() == score
    assert verdict.reached.tolist() == reached


def test_c5_a_number_is_compared_in_the_precision_of_the_output():
    # Rounded to single precision first, 0.1 would be 0.100000001490 and 16777217 would be 16777216.
    double = torch.tensor([0.100000001, 0.1], dtype=torch.float64)
    assert judge(AtMost(0.1), double).reached.tolist() == [False, True]
    assert judge(AtMost(torch.tensor(0.1, dtype=torch.float64)), double).reached.tolist() == [False, True]
    assert not judge(AtLeast(16777217.0), torch.tensor([16777216.0], dtype=torch.float64)).reached.item()
    assert judge(Near(1e-9, 1e-12), torch.tensor([1.0005e-9], dtype=torch.float64)).reached.item()
    AtLeast(1e300).check(double)


def test_a_value_of_another_precision_is_taken_to_that_of_the_output():
    for value, output in ((torch.float64, torch.float32), (torch.float32, torch.float64)):
        verdict = judge(AtLeast(torch.tensor([0.5, 2.0], dtype=value)), torch.tensor([1.0, 1.0], dtype=output))
        assert verdict.loss.dtype == verdict.score.dtype == output
        assert verdict.reached.tolist() == [True, False]


def test_c5_a_value_beyond_the_precision_of_the_output_is_refused():
    for goal in (AtLeast(1e300), AtMost(torch.tensor([1.0, 1e300, 2.0, 3.0], dtype=torch.float64))):
        with pytest.raises(ValueError, match=r"1e\+300.*float32"):
            goal.check(LOGITS[:, 0])


@pytest.mark.parametrize("kind", [AtLeast, AtMost, Near])
def test_c10_a_value_that_needs_a_gradient_leaves_none_behind(kind: type[AtLeast]):
    verdict = judge(kind(torch.tensor(0.5, requires_grad=True)), torch.zeros(3, requires_grad=True))
    assert verdict.loss.requires_grad
    assert not verdict.score.requires_grad
    value = torch.tensor(0.5, requires_grad=True)
    judge(kind(value), torch.ones(3, requires_grad=True)).loss.sum().backward()
    assert value.grad is None


# All


GOALS = [
    ReachClass(LABELS, 0.7),
    LeaveClass(LABELS, 0.7),
    ReachClass(1),
    AtLeast(torch.tensor([1.0, 2.0, 3.0, 4.0])),
    AtMost(torch.tensor(2.0)),
    Near(torch.tensor([1.0, 2.0, 3.0, 4.0]), 0.5),
    Near(1.5),
]


@pytest.mark.parametrize("goal", GOALS, ids=str)
def test_a_goal_judges_any_rows_in_any_order_and_number(goal: Goal):
    output, rows = LOGITS if goal.of_classes else LOGITS[:, 0], torch.tensor([3, 1, 1])
    for received, expected in zip(goal.judge(output[rows], rows), judge(goal, output)):
        torch.testing.assert_close(received, expected[rows])


class _Waits(TorchDispatchMode):
    r"""Counts what makes the processor wait for the device: tensors whose values Python wants to know."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("softening", [0.0, 1.5])
@pytest.mark.parametrize("goal", GOALS, ids=str)
def test_r3_a_judgement_does_not_wait_for_the_device(goal: Goal, softening: float):
    output, rows = LOGITS if goal.of_classes else LOGITS[:, 0], torch.arange(4)
    with _Waits() as waits:
        assert bool(torch.ones(1) == 1)
        noticed = waits.count
        goal.judge(output, rows, softening)
    assert noticed == 1
    assert waits.count == noticed


@pytest.mark.parametrize("goal", [ReachClass(1), LeaveClass(1), AtLeast(0.2), AtMost(0.2), Near(0.2)], ids=str)
def test_the_score_rises_where_the_loss_falls(goal: Goal):
    output = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    verdict = judge(goal, output if goal.of_classes else output[:, 0])
    assert verdict.loss.argsort().tolist() == verdict.score.argsort(descending=True).tolist()


def test_outputs_agree_when_they_name_the_same_class_or_both_reach_the_value():
    output, other = torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([[9.0, 1.0], [3.0, 1.0]])
    rows = torch.arange(2)
    assert ReachClass(1).agrees(output, other, rows).tolist() == [True, False]
    assert AtLeast(2.5).agrees(output[:, 0], other[:, 0], rows).tolist() == [False, False]
    assert AtLeast(5.0).agrees(output[:, 0], other[:, 0], rows).tolist() == [False, True]


def test_a_goal_of_ones_own_is_one_method():
    class Even(Goal):
        def judge(self, output: Tensor, rows: Tensor, softening: float = 0.0) -> Verdict:
            off = output.remainder(2)
            return Verdict(off, -off.detach(), off == 0)

    goal = Even()
    assert not goal.of_classes
    goal.check(torch.zeros(3))
    goal.check_length(3)
    assert goal.agrees(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 4.0]), torch.arange(2)).tolist() == [True, False]
    with pytest.raises(TypeError, match="abstract"):
        Goal()


@pytest.mark.parametrize("make", [lambda: ReachClass(LABELS), lambda: AtLeast(torch.ones(3)), lambda: Near(1.0)])
def test_c41_goals_compare_by_identity(make: Callable[[], Goal]):
    goal, other = make(), make()
    assert goal == goal
    assert goal != other
    assert len({goal, other}) == 2


# What they refuse


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (lambda: ReachClass(1.0), TypeError, "float"),
        (lambda: ReachClass(True), TypeError, "bool"),
        (lambda: ReachClass("1"), TypeError, "str"),
        (lambda: ReachClass(None), TypeError, "NoneType"),
        (lambda: ReachClass(torch.tensor([1.0])), TypeError, "float32"),
        (lambda: ReachClass(torch.tensor([1j])), TypeError, "complex64"),
        (lambda: LeaveClass(torch.tensor([True])), TypeError, "torch.bool"),
        (lambda: ReachClass(2**70), ValueError, str(2**70)),
        (lambda: ReachClass(1, confidence=1.0), ValueError, r"1\.0"),
        (lambda: ReachClass(1, confidence=0.0), ValueError, r"0\.0"),
        (lambda: ReachClass(1, confidence=math.nan), ValueError, "nan"),
        (lambda: LeaveClass(1, confidence="high"), TypeError, "str"),
        (lambda: LeaveClass(1, confidence=True), TypeError, "bool"),
        (lambda: Near(1.0, tolerance=0.0), ValueError, r"0\.0"),
        (lambda: Near(1.0, tolerance=math.nan), ValueError, "nan"),
        (lambda: Near(1.0, tolerance=math.inf), ValueError, "inf"),
        (lambda: Near(1.0, tolerance=None), TypeError, "NoneType"),
        (lambda: AtLeast("much"), TypeError, "str"),
        (lambda: AtMost(True), TypeError, "bool"),
        (lambda: Near(None), TypeError, "NoneType"),
        (lambda: AtLeast(np.ones(3)), TypeError, "ndarray"),
        (lambda: AtLeast(torch.tensor([True])), TypeError, "torch.bool"),
        (lambda: AtLeast(torch.tensor([1j])), TypeError, "complex64"),
        (lambda: AtLeast(math.nan), ValueError, "nan"),
        (lambda: AtLeast(-math.inf), ValueError, "-inf"),
        (lambda: AtMost(torch.tensor([1.0, math.nan])), ValueError, "nan"),
        (lambda: AtLeast(10**400), ValueError, "1000000"),
    ],
)
def test_a_goal_refuses_what_it_cannot_mean(wrong: Callable[[], Goal], error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        wrong()


def test_c40_whole_numbers_of_any_kind_are_accepted():
    assert judge(ReachClass(np.int64(1)), LOGITS).score[0] == judge(ReachClass(1), LOGITS).score[0]
    assert judge(AtLeast(np.float64(0.5)), LOGITS[:, 0]).reached.tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("goal", "output", "says"),
    [
        (ReachClass(3), LOGITS, "class 3 .* 0 to 2"),
        (ReachClass(-1), LOGITS, "class -1 .* 0 to 2"),
        (LeaveClass(torch.tensor([0, 1, 2, 7])), LOGITS, "class 7 .* 0 to 2"),
        (ReachClass(0), LOGITS[:, 0], r"\(4,\).*binary_logit"),
        (ReachClass(0), LOGITS[:, :1], r"\(4, 1\).*binary_logit"),
        (AtLeast(1.0), LOGITS, r"\(4, 3\).*target="),
    ],
)
def test_check_names_what_does_not_fit_the_output(goal: Goal, output: Tensor, says: str):
    with pytest.raises(ValueError, match=says):
        goal.check(output)


@pytest.mark.parametrize("goal", [ReachClass(torch.tensor([0, 1])), Near(torch.tensor([1.0, 2.0]))])
def test_values_of_another_number_of_examples_are_refused(goal: Goal):
    goal.check_length(2)
    with pytest.raises(ValueError, match=r"\(2,\) for 4"):
        goal.check_length(4)
