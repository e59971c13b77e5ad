from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from captum_dcf.search import AtLeast, AtMost, Goal, LeaveClass, Near, ReachClass

LOGITS = torch.tensor([[0.0, 2.0, -1.0], [6.0, 0.0, 0.0], [-3.0, 1.0, 4.0], [5.0, 5.0, -20.0]])


def test_reach_class_of_logits_is_the_log_probability_of_a_categorical():
    labels = torch.tensor([1, 0, 2, 0])
    goal = ReachClass(labels, confidence=0.9)
    expected = Categorical(logits=LOGITS).log_prob(labels)
    torch.testing.assert_close(goal.loss(LOGITS), -expected)
    torch.testing.assert_close(goal.score(LOGITS), expected.exp())
    # By hand: e²/(1 + e² + 1/e) = 0.84, e⁶/(e⁶ + 2) = 0.995, e⁴/(e⁴ + e + e⁻³) = 0.95, one half.
    assert goal.reached(LOGITS).tolist() == [False, True, True, False]


def test_one_label_for_all_is_the_same_as_that_label_for_each():
    one, each = ReachClass(2, 0.6), ReachClass(torch.full((4,), 2), 0.6)
    for name in ("loss", "score", "reached"):
        torch.testing.assert_close(getattr(one, name)(LOGITS), getattr(each, name)(LOGITS))


def test_leave_class_of_logits_is_the_probability_of_all_others_together():
    labels = torch.tensor([1, 0, 1, 0])
    goal = LeaveClass(labels, confidence=0.9)
    rest = 1 - Categorical(logits=LOGITS.double()).log_prob(labels).exp()
    torch.testing.assert_close(goal.score(LOGITS).double(), rest, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(goal.loss(LOGITS).double(), -rest.log(), rtol=1e-5, atol=1e-6)
    assert goal.reached(LOGITS).tolist() == [False, False, True, False]


def test_leaving_keeps_its_gradient_where_the_class_is_all_but_certain():
    logits = torch.tensor([[60.0, 0.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(LeaveClass(0).loss(logits).sum(), logits)
    # -log(p₁ + p₂) = logsumexp(all) - logsumexp(others), whose gradients are (1, 0, 0) and (0, ½, ½).
    torch.testing.assert_close(gradient, torch.tensor([[1.0, -0.5, -0.5]]))


@pytest.mark.parametrize("kind", [ReachClass, LeaveClass])
def test_probabilities_mean_what_their_logits_mean(kind: type[ReachClass] | type[LeaveClass]):
    labels = torch.tensor([1, 0, 2, 0])
    of_logits, of_probabilities = kind(labels), kind(labels, output="probabilities")
    probabilities = LOGITS.softmax(1)
    for name in ("loss", "score", "reached"):
        torch.testing.assert_close(getattr(of_probabilities, name)(probabilities), getattr(of_logits, name)(LOGITS))


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_a_binary_logit_is_a_bernoulli(shape: tuple[int, ...]):
    logit = torch.tensor([-3.0, 0.5, 6.0, -80.0])
    labels = torch.tensor([0, 1, 1, 1])
    goal = ReachClass(labels, 0.9, output="binary_logit")
    expected = Bernoulli(logits=logit).log_prob(labels.float())
    torch.testing.assert_close(goal.loss(logit.view(shape)), -expected)
    torch.testing.assert_close(goal.score(logit.view(shape)), expected.exp())
    assert goal.reached(logit.view(shape)).tolist() == [True, False, True, False]
    away = LeaveClass(1 - labels, 0.9, output="binary_logit")
    torch.testing.assert_close(away.loss(logit.view(shape)), -expected)
    assert away.reached(logit.view(shape)).tolist() == [True, False, True, False]


def test_below_one_half_a_class_must_also_be_the_most_likely():
    probabilities = torch.tensor([[0.35, 0.40, 0.25], [0.25, 0.35, 0.40]])
    assert ReachClass(0, 0.3, "probabilities").reached(probabilities).tolist() == [False, False]
    assert ReachClass(1, 0.3, "probabilities").reached(probabilities).tolist() == [True, False]
    # The others together exceed the confidence, but the class still leads.
    assert LeaveClass(1, 0.5, "probabilities").reached(probabilities).tolist() == [False, True]


def test_confidence_has_to_be_exceeded():
    probabilities = torch.tensor([[0.25, 0.75]])
    assert not ReachClass(1, 0.75, "probabilities").reached(probabilities).item()


def test_a_probability_of_zero_has_a_finite_loss():
    goal = ReachClass(1, output="probabilities")
    assert goal.loss(torch.tensor([[1.0, 0.0]])).isfinite().all()


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
    ],
)
def test_value_goals_by_hand(
    goal: Goal, loss: list[float], score: list[float], reached: list[bool], shape: tuple[int, ...]
):
    output = torch.tensor([1.0, 2.0, 3.5]).view(shape)
    goal.check(output)
    assert goal.loss(output).tolist() == loss
    assert goal.score(output).tolist() == score
    assert goal.reached(output).tolist() == reached


@pytest.mark.parametrize(
    "goal",
    [
        ReachClass(torch.tensor([1, 0, 2, 0]), 0.7),
        LeaveClass(torch.tensor([1, 0, 2, 0]), 0.7),
        ReachClass(1),
        AtLeast(torch.tensor([1.0, 2.0, 3.0, 4.0])),
        AtMost(torch.tensor(2.0)),
        Near(torch.tensor([1.0, 2.0, 3.0, 4.0]), 0.5),
        Near(1.5),
    ],
)
def test_take_speaks_of_the_examples_taken(goal: Goal):
    output = LOGITS if isinstance(goal, (ReachClass, LeaveClass)) else LOGITS[:, 0]
    index = torch.tensor([3, 1])
    for name in ("loss", "score", "reached"):
        torch.testing.assert_close(getattr(goal.take(index), name)(output[index]), getattr(goal, name)(output)[index])


@pytest.mark.parametrize(
    "goal", [ReachClass(1), ReachClass(1, output="probabilities"), LeaveClass(1), AtLeast(0.2), AtMost(0.2), Near(0.2)]
)
def test_the_score_rises_where_the_loss_falls(goal: Goal):
    raw = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    output: Tensor = raw.softmax(1) if isinstance(goal, (ReachClass, LeaveClass)) else raw[:, 0]
    if getattr(goal, "output", "") == "logits":
        output = raw
    assert goal.loss(output).argsort().tolist() == goal.score(output).argsort(descending=True).tolist()


def test_outputs_agree_when_they_name_the_same_class_or_both_reach_the_value():
    output, other = torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([[9.0, 1.0], [3.0, 1.0]])
    assert ReachClass(1).agrees(output, other).tolist() == [True, False]
    assert AtLeast(2.5).agrees(output[:, 0], other[:, 0]).tolist() == [False, False]
    assert AtLeast(5.0).agrees(output[:, 0], other[:, 0]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (lambda: ReachClass(1.0), TypeError, "float"),
        (lambda: ReachClass(True), TypeError, "bool"),
        (lambda: ReachClass(torch.tensor([1.0])), TypeError, "float32"),
        (lambda: LeaveClass(torch.tensor([True])), TypeError, "torch.bool"),
        (lambda: ReachClass(1, confidence=1.0), ValueError, r"1\.0"),
        (lambda: ReachClass(1, confidence=0.0), ValueError, r"0\.0"),
        (lambda: ReachClass(1, confidence=math.nan), ValueError, "nan"),
        (lambda: ReachClass(1, output="logit"), ValueError, "binary_logit.*'logit'"),
        (lambda: Near(1.0, tolerance=0.0), ValueError, r"0\.0"),
        (lambda: Near(1.0, tolerance=math.nan), ValueError, "nan"),
        (lambda: AtLeast("much"), TypeError, "str"),
        (lambda: AtMost(True), TypeError, "bool"),
        (lambda: Near(None), TypeError, "NoneType"),
        (lambda: AtLeast(math.nan), ValueError, "nan"),
    ],
)
def test_a_goal_refuses_what_it_cannot_mean(wrong, error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        wrong()


@pytest.mark.parametrize(
    ("goal", "output", "says"),
    [
        (ReachClass(3), LOGITS, "class 3 .* 0 to 2"),
        (ReachClass(-1), LOGITS, "class -1 .* 0 to 2"),
        (ReachClass(torch.tensor([0, 1, 2, 7])), LOGITS, "class 7 .* 0 to 2"),
        (ReachClass(torch.tensor([0, 1])), LOGITS, r"\(2,\) for 4"),
        (ReachClass(2, output="binary_logit"), LOGITS[:, 0], "class 2 .* 0 to 1"),
        (ReachClass(0, output="binary_logit"), LOGITS, r"\(4, 3\)"),
        (ReachClass(0), LOGITS[:, 0], r"\(4,\).*binary_logit"),
        (ReachClass(0), LOGITS[:, :1], r"\(4, 1\).*binary_logit"),
        (ReachClass(0, output="probabilities"), LOGITS, "sum to 1.*logits"),
        (AtLeast(1.0), LOGITS, r"\(4, 3\).*target="),
        (Near(torch.tensor([1.0, 2.0])), LOGITS[:, 0], r"\(2,\) for 4"),
    ],
)
def test_check_names_what_does_not_fit_the_output(goal: Goal, output: Tensor, says: str):
    with pytest.raises(ValueError, match=says):
        goal.check(output)


@pytest.mark.parametrize("kind", [ReachClass, LeaveClass])
def test_softening_takes_the_cross_entropy_at_a_temperature_of_so_many_deviations(
    kind: type[ReachClass] | type[LeaveClass],
):
    labels = torch.tensor([1, 0, 2, 0])
    temperature = (1.5 * LOGITS.std(1, keepdim=True)).clamp_min(1)
    softened, plain = kind(labels, 0.9, softening=1.5), kind(labels, 0.9)
    torch.testing.assert_close(softened.loss(LOGITS), plain.loss(LOGITS / temperature))
    # It leads elsewhere, but to the same place.
    torch.testing.assert_close(softened.score(LOGITS), plain.score(LOGITS))
    assert torch.equal(softened.reached(LOGITS), plain.reached(LOGITS))
    assert softened.take(torch.tensor([2])).softening == 1.5


def test_softening_leaves_logits_alone_that_are_close_together():
    close = LOGITS / 100
    torch.testing.assert_close(ReachClass(1, softening=1.5).loss(close), ReachClass(1).loss(close))


@pytest.mark.parametrize(
    ("softening", "error", "says"),
    [
        (-1.0, ValueError, r"-1\.0"),
        (math.inf, ValueError, "inf"),
        (math.nan, ValueError, "nan"),
        ("soft", TypeError, "str"),
    ],
)
def test_softening_is_a_number_that_is_not_negative(softening: object, error: type[Exception], says: str):
    with pytest.raises(error, match=f"softening.*{says}"):
        ReachClass(1, softening=softening)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
@pytest.mark.parametrize("kind", [ReachClass, LeaveClass])
def test_labels_of_any_integer_kind(kind: type[ReachClass], dtype: torch.dtype):
    output, labels = torch.randn(3, 4), torch.tensor([0, 3, 1])
    expected, goal = kind(labels), kind(labels.to(dtype))
    assert torch.equal(goal.score(output), expected.score(output))
    assert torch.equal(goal.loss(output), expected.loss(output))
