r"""What is asked of a model: goals, words, and how an output of classes is read."""

from __future__ import annotations

import pytest
import torch

from captum_dcf import AtLeast, AtMost, LeaveClass, Near, ReachClass
from captum_dcf.explain.question import Question, output_kind


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (torch.tensor([[2.0, -1.0], [0.5, 0.5]]), "logits"),
        (torch.tensor([[0.2, 0.8], [0.6, 0.4]]), "probabilities"),
        (torch.tensor([[0.2, 0.8], [0.6, 0.5]]), "logits"),
        (torch.tensor([[1.5, -0.5]]), "logits"),  # sums to 1, and is no share
        (torch.rand(5, 4).half().softmax(1).float(), "probabilities"),
        (torch.tensor([0.2, 3.0]), "binary_logit"),
        (torch.tensor([[0.2], [3.0]]), "binary_logit"),
    ],
)
def test_how_an_output_is_read(output, kind):
    assert output_kind(output) == kind


@pytest.mark.parametrize(
    ("question", "score", "suffix"),
    [
        (Question(9), "P(9)", "to-9"),
        (Question("9"), "P(9)", "to-9"),
        (Question("blond", names=("not blond", "blond")), "P(blond)", "to-blond"),
        (Question(0, names=("not blond", "blond")), "P(not blond)", "to-not-blond"),
        (Question("7", names=("7", "1")), "P(7)", "to-7"),  # a name before a number
        (Question(1, names=("a", "../b/:c")), "P(../b/:c)", "to-b-c"),
        (Question(leave=True), "P(another class)", "to-another"),
        (Question(value=AtLeast(12.0), unit="nuclei"), "nuclei", "to-at-least-12"),
        (Question(value=AtMost(-0.5)), "output", "to-at-most--0.5"),
        (Question(value=Near(1e6)), "output", "to-near-1e+06"),
    ],
)
def test_words(question, score, suffix):
    assert question.score == score
    assert question.suffix == suffix


def test_names_come_before_numbers():
    assert Question("1", names=("1", "0")).target == 0


def test_goals():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
    reach = Question(2, confidence=0.8).goal(logits)
    assert isinstance(reach, ReachClass)
    assert (reach.label, reach.confidence) == (2, 0.8)
    leave = Question(leave=True).goal(logits)
    assert isinstance(leave, LeaveClass)
    assert leave.confidence == 0.99
    assert torch.equal(torch.as_tensor(leave.label), torch.tensor([0, 1]))
    value = AtLeast(3.0)
    assert Question(value=value).goal(logits) is value


def test_numbers_are_probabilities_or_values():
    logits, rows = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 1])
    left = Question(leave=True)
    assert left.numbers(left.goal(logits), logits, rows) == pytest.approx(
        [float(logits.softmax(1)[0, 1]), float(logits.softmax(1)[1, 0])]
    )
    second = Question(1, value=AtLeast(2.0))
    assert second.numbers(AtLeast(2.0), logits, rows) == [0.0, 3.0]
    alone = Question(value=AtLeast(2.0))
    assert alone.numbers(AtLeast(2.0), torch.tensor([[1.5], [2.5]]), rows) == [1.5, 2.5]


def test_what_is_seen():
    logits = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    assert Question(1, names=("no", "yes")).seen(logits) == ["no (0.881)", "yes (0.953)"]
    assert Question(value=AtLeast(2.0)).seen(logits[:, :1]) == ["", ""]


@pytest.mark.parametrize(
    "arguments",
    [{}, {"target": 1, "leave": True}, {"leave": True, "value": AtLeast(1.0)}],
    ids=str,
)
def test_one_thing_is_asked(arguments):
    with pytest.raises(ValueError, match="one thing to reach"):
        Question(**arguments)
