r"""Model: which part of an output is meant, what kind it is of, what the model is handed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from plane import judge
from torch import Tensor, nn
from torch.distributions import Bernoulli

from captum_dcf.search import LeaveClass, Model, ReachClass
from captum_dcf.search.model import OutputKind

IMAGES = torch.arange(24.0).view(4, 1, 2, 3) / 24
LOGITS = torch.tensor([[0.0, 2.0, -1.0], [6.0, 0.0, 0.0], [-3.0, 1.0, 4.0], [5.0, 5.0, -20.0]])
LABELS = torch.tensor([1, 0, 2, 0])
ROWS = torch.arange(4)


def flat(images: Tensor) -> Tensor:
    return images.flatten(1)


def given(output: Any, kind: OutputKind | None = "logits", **settings: Any) -> Tensor:
    r"""What a model of four examples that always returns ``output`` gives on."""
    return Model(lambda images: output, 4, (), kind, **settings)(IMAGES, ROWS)


# Kinds of output


@pytest.mark.parametrize("goal_of", [ReachClass, LeaveClass])
def test_probabilities_mean_what_their_logits_mean(goal_of: type[ReachClass]):
    goal = goal_of(LABELS)
    for received, expected in zip(judge(goal, given(LOGITS.softmax(1), "probabilities")), judge(goal, LOGITS)):
        torch.testing.assert_close(received, expected)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_a_binary_logit_is_a_bernoulli(shape: tuple[int, ...]):
    logit, labels = torch.tensor([-3.0, 0.5, 6.0, -80.0]), torch.tensor([0, 1, 1, 1])
    output = given(logit.view(shape), "binary_logit")
    expected = Bernoulli(logits=logit).log_prob(labels.float())
    for goal in (ReachClass(labels, 0.9), LeaveClass(1 - labels, 0.9)):
        goal.check(output)
        loss, score, reached = judge(goal, output)
        torch.testing.assert_close(loss, -expected)
        torch.testing.assert_close(score, expected.exp())
        assert reached.tolist() == [True, False, True, False]
    with pytest.raises(ValueError, match=r"class 2 .* 0 to 1"):
        ReachClass(2).check(output)


def test_a_binary_logit_of_many_values_is_refused():
    with pytest.raises(ValueError, match=r"binary logit.*\(4, 3\)"):
        given(LOGITS, "binary_logit")


def test_a_probability_of_zero_has_a_finite_loss_and_a_small_one_a_gradient():
    small = torch.tensor([[1.0, 0.0], [1 - 1e-6, 1e-6], [1.0, 1e-30], [1.0, -1e-9]], requires_grad=True)
    verdict = judge(ReachClass(1), given(small, "probabilities"))
    assert verdict.loss.isfinite().all()
    torch.testing.assert_close(verdict.loss[1:3].detach(), -torch.tensor([1e-6, 1e-30]).log())
    (gradient,) = torch.autograd.grad(verdict.loss.sum(), small)
    assert (gradient[1:3, 1] < 0).all()


def test_c42_probabilities_that_sum_to_a_little_more_than_one_are_none_above_one():
    for total in (0.991, 1.0088):
        output = given(torch.tensor([[1e-9, total - 1e-9]]).expand(4, 2), "probabilities")
        Model(flat, 4, kind="probabilities").check(output)
        score = judge(ReachClass(1), output).score
        assert (score <= 1).all()
        assert (score > 0.99).all()


@pytest.mark.parametrize(
    "rows",
    [
        [[0.55, 0.54]],
        [[0.4, 0.5]],
        [[0.5, 0.5], [0.5, 0.6]],
        [[1.2, -0.2]],
        [[1.005, -0.05]],
        [[torch.nan, 0.5]],
        [[2.0, 1.0]],
    ],
)
def test_what_is_no_probability_is_refused(rows: list[list[float]]):
    output = torch.tensor(rows)
    model = Model(lambda images: output, len(rows), kind="probabilities")
    with pytest.raises(ValueError, match=r"sum to 1.*logits"):
        model.check(model(torch.zeros(len(rows), 1), torch.arange(len(rows))))


def test_logits_are_not_asked_to_be_probabilities():
    Model(flat, 4).check(LOGITS)
    Model(flat, 4, kind=None).check(LOGITS[:, 0])


@pytest.mark.parametrize("kind", ["logits", None])
def test_logits_and_outputs_of_no_kind_are_given_on_as_they_are(kind: OutputKind | None):
    assert torch.equal(given(LOGITS, kind), LOGITS)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_is_judged_in_single(dtype: torch.dtype, expected: torch.dtype):
    assert given(LOGITS.to(dtype)).dtype == expected


# Which part is meant


class Output(OrderedDict):
    r"""As transformers return it: a mapping whose entries are attributes too."""

    def __getattr__(self, name: str) -> Tensor:
        if name in self:
            return self[name]
        raise AttributeError(name)


OTHER = torch.zeros(4, 7)


@pytest.mark.parametrize(
    ("output", "select"),
    [
        (LOGITS, None),
        ((LOGITS, OTHER), None),
        ([LOGITS], None),
        ({"loss": OTHER, "logits": LOGITS}, None),
        (SimpleNamespace(logits=LOGITS, hidden=OTHER), None),
        (Output(hidden=OTHER, logits=LOGITS), None),
        ({"values": LOGITS, "items": OTHER}, "values"),
        ((OTHER, LOGITS), 1),
        ((OTHER, LOGITS), -1),
        ({"scores": LOGITS, "logits": OTHER}, "scores"),
        (SimpleNamespace(scores=LOGITS), "scores"),
        (Output(hidden=OTHER, scores=LOGITS), "scores"),
        ({"deep": {"er": LOGITS}}, lambda output: output["deep"]["er"]),
        (LOGITS.repeat(1, 2), lambda output: output[:, :3]),
    ],
)
def test_the_part_that_is_meant(output: Any, select: Any):
    assert torch.equal(given(output, select=select), LOGITS)


@pytest.mark.parametrize(
    ("output", "select", "error", "says"),
    [
        ({"scores": LOGITS}, None, TypeError, "dict.*select="),
        ((), None, TypeError, "tuple.*select="),
        (None, None, TypeError, "NoneType.*select="),
        (3.0, None, TypeError, "float"),
        ((LOGITS,), 5, ValueError, "select=5.*tuple"),
        ({"scores": LOGITS}, "logit", ValueError, r"'logit'.*\['scores'\]"),
        (SimpleNamespace(scores=LOGITS), "logit", ValueError, "'logit'.*SimpleNamespace"),
        (LOGITS, "scores", ValueError, "'scores'.*Tensor"),
        ((LOGITS,), lambda output: None, TypeError, "NoneType"),
        (LOGITS[:3], None, ValueError, r"\(3, 3\) for 4"),
        (torch.tensor(1.0), None, ValueError, r"\(\) for 4"),
        (LOGITS.long(), None, ValueError, "int64"),
        (LOGITS > 0, None, ValueError, "bool"),
        (LOGITS + 0j, None, ValueError, "complex64"),
    ],
)
def test_what_is_no_output_is_refused_by_name(output: Any, select: Any, error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        given(output, select=select)


# What the model is handed


def _scaling(images: Tensor) -> Tensor:
    return images.sub_(0.5).div_(0.5).flatten(1)


IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "arithmetic": _scaling,
    "a ReLU": nn.Sequential(nn.ReLU(inplace=True), nn.Flatten()),
    "a slice": lambda images: images[:, :, 0].fill_(0.0).flatten(1) + images.flatten(1)[:, :3],
}


@pytest.mark.parametrize("model", IN_PLACE.values(), ids=list(IN_PLACE))
@pytest.mark.parametrize("normalize", [None, (0.0, 1.0)])
def test_c1_a_model_may_write_into_what_it_is_given(model: Callable[[Tensor], Tensor], normalize: Any):
    images = IMAGES - 0.5
    before = images.clone()
    Model(model, 4, normalize=normalize)(images, ROWS)
    assert torch.equal(images, before)
    # Also in a search, where the images are leaves or views that need gradients.
    leaf = before.clone().requires_grad_()
    for needing in (leaf, leaf[:, :], leaf * 1):
        Model(model, 4, normalize=normalize)(needing, ROWS).sum().backward()
        assert torch.equal(needing.detach(), before)
    assert leaf.grad is not None


def test_pixels_are_standardised_by_channel_for_models_that_want_it():
    images, mean, deviation = torch.rand(4, 3, 2, 2), [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    received = Model(flat, 4, normalize=(mean, deviation))(images, ROWS)
    expected = [(images[:, c] - mean[c]) / deviation[c] for c in range(3)]
    torch.testing.assert_close(received, torch.stack(expected, 1).flatten(1))
    torch.testing.assert_close(Model(flat, 4, normalize=(0.5, 0.25))(images, ROWS), (images - 0.5).flatten(1) / 0.25)


def test_standardising_is_differentiated_through():
    images = torch.rand(4, 3, 2, 2, requires_grad=True)
    Model(flat, 4, normalize=(0.0, (0.5, 1.0, 2.0)))(images, ROWS).sum().backward()
    torch.testing.assert_close(images.grad[0, :, 0, 0], torch.tensor([2.0, 1.0, 0.5]))


def test_arguments_of_one_entry_per_example_follow_their_rows():
    seen: list[tuple[Any, ...]] = []

    def forward(images: Tensor, *arguments: Any) -> Tensor:
        seen.append(arguments)
        return flat(images)

    each, same, scalar = torch.arange(4) * 10, torch.arange(3), torch.tensor(7)
    rows = torch.tensor([2, 0, 2])
    Model(forward, 4, (each, "word", same, scalar, None))(IMAGES[rows], rows)
    [(one, word, three, seven, none)] = seen
    assert one.tolist() == [20, 0, 20]
    assert (word, none) == ("word", None)
    assert torch.equal(three, same)
    assert torch.equal(seven, scalar)


def test_arguments_may_be_written_into():
    shared, each = torch.ones(3), torch.ones(4, 2)

    def forward(images: Tensor, shared: Tensor, each: Tensor) -> Tensor:
        return flat(images) + shared.mul_(2).sum() + each.mul_(2).sum()

    Model(forward, 4, (shared, each))(IMAGES, ROWS)
    assert torch.equal(shared, torch.ones(3))
    assert torch.equal(each, torch.ones(4, 2))


def test_references_are_no_examples_and_have_no_arguments_of_their_own():
    picked = Model(flat, 4, (torch.arange(3),), pick=lambda output, rows: output[:, 0])
    with pytest.raises(TypeError):
        picked(IMAGES)  # flat takes no argument: it was handed the one that is no example's
    assert Model(flat, 4, pick=lambda output, rows: output[:, :2])(IMAGES[:2]).shape == (2, 6)
    assert Model(flat, 4, pick=lambda output, rows: output[:, :2])(IMAGES, ROWS).shape == (4, 2)
    with pytest.raises(ValueError, match="4 examples"):
        Model(lambda images, each: flat(images), 4, (torch.arange(4),))(IMAGES[:2])


def test_an_error_of_shapes_says_what_the_model_was_given():
    with pytest.raises(ValueError, match=r"forward_func.*\(4, 1, 2, 3\).*float32.*cpu.*shapes"):
        Model(nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), 4)(IMAGES, ROWS)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("k"),
        NotImplementedError("n"),
        torch.cuda.OutOfMemoryError("m"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=repr,
)
def test_errors_of_the_models_own_arrive_as_they_are(error: Exception):
    def broken(images: Tensor) -> Tensor:
        raise error

    with pytest.raises(type(error)) as caught:
        Model(broken, 4)(IMAGES, ROWS)
    assert caught.value is error
