r"""What DiffeomorphicCounterfactual gives, whoever asks and in whatever batch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import Rotated, RowClassifier, images

from captum_dcf import (
    Adam,
    AtLeast,
    AtMost,
    Counterfactual,
    CounterfactualAttribution,
    CounterfactualWarning,
    DiffeomorphicCounterfactual,
    Generator,
    Goal,
    LeaveClass,
    Near,
    Pixels,
    ReachClass,
    Status,
    UnitGradient,
)


class Conv(nn.Module):
    r"""A classifier that is nowhere linear, with dropout and batch norm, in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(), nn.Dropout(), nn.Flatten(), nn.Linear(128, 3)
        )
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return 20 * self.body(x)


@pytest.fixture(params=["linear", "convolutions"])
def searched(request: pytest.FixtureRequest, method: DiffeomorphicCounterfactual) -> DiffeomorphicCounterfactual:
    return method if request.param == "linear" else DiffeomorphicCounterfactual(Conv(), Rotated())


@pytest.mark.parametrize("kind", ["int", "list", "tensor"])
def test_a_batch_gives_what_each_example_gives_alone(searched: DiffeomorphicCounterfactual, kind: str):
    x = images(9)
    each = [2] * 9 if kind == "int" else [0, 1, 2] * 3
    target = {"int": 2, "list": each, "tensor": torch.tensor(each)}[kind]
    together = searched.counterfactual(x, target, max_steps=60)
    assert together.reached.sum() >= 6
    for row in range(9):
        alone = searched.counterfactual(x[row : row + 1], each[row], max_steps=60)
        assert (alone.counterfactuals - together.counterfactuals[row]).abs().max() <= 1e-4
        assert alone.steps[0] == together.steps[row]
        assert alone.status[0] == together.status[row]


@pytest.mark.parametrize("size", [1, 2, 4, 9, 100])
def test_internal_batch_size_changes_nothing(searched: DiffeomorphicCounterfactual, size: int):
    x, target = images(9), [0, 1, 2] * 3
    whole = searched.counterfactual(x, target, max_steps=60, keep_path=True, refine=True)
    parts = searched.counterfactual(x, target, max_steps=60, keep_path=True, refine=True, internal_batch_size=size)
    assert (parts.counterfactuals - whole.counterfactuals).abs().max() <= 1e-4
    for name in ("steps", "status"):
        assert torch.equal(getattr(parts, name), getattr(whole, name))
    for name in ("inputs", "reconstructions", "start_latents", "end_latents", "start_scores", "end_scores", "path"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-4, atol=1e-4)


def test_internal_batch_size_bounds_what_the_model_and_the_generator_see(classifier: nn.Module):
    sizes = []

    def watched(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return classifier(x)

    class Watched(Rotated):
        def encode(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return super().encode(x)

        def decode(self, z: Tensor) -> Tensor:
            sizes.append(len(z))
            return super().decode(z)

    DiffeomorphicCounterfactual(watched, Watched()).attribute(images(7), target=1, internal_batch_size=3, refine=True)
    assert max(sizes) == 3


def test_two_runs_are_equal_to_the_bit(searched: DiffeomorphicCounterfactual):
    first, second = (searched.counterfactual(images(6), [0, 1, 2] * 2, max_steps=60, refine=True) for _ in range(2))
    for name, value in vars(first).items():
        assert value is None or torch.equal(value, getattr(second, name))


def test_the_three_ways_to_ask_give_one_answer(method: DiffeomorphicCounterfactual):
    x = images(3)
    result = method.counterfactual(x, target=1)
    assert isinstance(result, Counterfactual)
    assert torch.equal(result.inputs, x)
    assert torch.equal(method.attribute(x, target=1), result.attributions)
    assert torch.equal(method.perturb(x, target=1), result.counterfactuals)
    assert torch.equal(method(x, target=1), result.counterfactuals)


def test_a_counterfactual_is_what_the_model_says_it_is(method: DiffeomorphicCounterfactual):
    result = method.counterfactual(images(5), target=[0, 1, 2, 0, 1], confidence=0.95)
    probabilities = method.forward_func(result.counterfactuals).softmax(1)[torch.arange(5), [0, 1, 2, 0, 1]]
    assert result.statuses() == [Status.FOUND] * 5
    assert (probabilities > 0.95).all()
    torch.testing.assert_close(probabilities, result.end_scores)
    before = method.forward_func(images(5)).softmax(1)[torch.arange(5), [0, 1, 2, 0, 1]]
    torch.testing.assert_close(before, result.start_scores)
    assert result.counterfactuals.min() >= 0
    assert result.counterfactuals.max() <= 1
    torch.testing.assert_close(result.reconstructions, images(5))


def test_by_default_a_step_is_a_28th_of_the_typical_length(method: DiffeomorphicCounterfactual):
    result = method.counterfactual(images(4), target=1, max_steps=1)
    lengths = (result.end_latents - result.start_latents).norm(dim=1)
    # √16 / 28, for the 16 standard normal coordinates.
    torch.testing.assert_close(lengths, torch.full((4,), 4 / 28))


def test_the_step_rule_can_be_chosen(classifier: nn.Module, generator: Generator):
    x = images(4)
    one = DiffeomorphicCounterfactual(classifier, generator, UnitGradient(0.3)).counterfactual(x, 1, max_steps=1)
    torch.testing.assert_close((one.end_latents - one.start_latents).norm(dim=1), torch.full((4,), 0.3))
    adam = DiffeomorphicCounterfactual(classifier, generator, Adam(0.02)).counterfactual(x, 1, max_steps=1)
    # The first step of Adam moves every coordinate by its learning rate.
    torch.testing.assert_close(
        (adam.end_latents - adam.start_latents).abs(), torch.full((4, 16), 0.02), rtol=1e-3, atol=0
    )


def test_a_step_in_latents_follows_the_induced_metric():
    # x = A z: a small step moves x along A Aᵀ ∇ₓ, where in pixels it would move along ∇ₓ.
    scales = torch.linspace(0.1, 2, 16)

    class Scaled(Pixels):
        def encode(self, x: Tensor) -> Tensor:
            return x.flatten(1) / scales

        def decode(self, z: Tensor) -> Tensor:
            return super().decode(z * scales)

    x, model = images(1), Conv()
    loss = -model(leaf := x.clone().requires_grad_()).log_softmax(1)[:, 1].sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    method = DiffeomorphicCounterfactual(model, Scaled((1, 4, 4), None), UnitGradient(1e-3), softening=0)
    moved = method.counterfactual(x, 1, max_steps=1).latent_change.flatten()
    expected = -(scales.square() * gradient.flatten())
    torch.testing.assert_close(moved / moved.norm(), expected / expected.norm(), rtol=1e-2, atol=1e-3)


def test_refining_ends_nearer_to_the_threshold(method: DiffeomorphicCounterfactual):
    plain = method.counterfactual(images(6), target=1)
    refined = method.counterfactual(images(6), target=1, refine=True)
    assert refined.reached.all()
    assert (refined.end_scores > 0.99).all()
    assert (refined.end_scores <= plain.end_scores).all()
    assert (refined.end_scores < plain.end_scores).any()


def test_the_path_leads_from_reconstruction_to_counterfactual(method: DiffeomorphicCounterfactual):
    result = method.counterfactual(images(4), target=1, keep_path=True)
    torch.testing.assert_close(result.path[0], result.reconstructions)
    torch.testing.assert_close(result.path[-1], result.counterfactuals)
    assert len(result.path) == result.steps.max() + 1


# Goals and outputs


def value(x: Tensor) -> Tensor:
    return 4 * x.flatten(1).mean(1) ** 2


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("goal", [AtLeast(2.0), AtMost(0.3), Near(1.5, 0.05), AtLeast(torch.tensor([1.5, 1.7, 2.0]))])
def test_goals_of_a_regressor(generator: Generator, goal: AtLeast | AtMost | Near, shape: tuple[int, ...]):
    method = DiffeomorphicCounterfactual(lambda x: value(x).view(shape), generator)
    result = method.counterfactual(images(3), goal=goal)
    assert result.statuses() == [Status.FOUND] * 3
    assert goal.reached(value(result.counterfactuals)).all()


def test_a_class_can_be_left(method: DiffeomorphicCounterfactual):
    labels = torch.tensor([0, 1, 2])
    result = method.counterfactual(images(3), goal=LeaveClass(labels, 0.95))
    assert result.reached.all()
    probabilities = method.forward_func(result.counterfactuals).softmax(1)
    assert (probabilities[torch.arange(3), labels] < 0.05).all()


def test_probabilities_give_what_their_logits_give(classifier: nn.Module, generator: Generator):
    x = images(3)
    of_probabilities = DiffeomorphicCounterfactual(
        lambda x: classifier(x).softmax(1), generator, output="probabilities"
    )
    expected = DiffeomorphicCounterfactual(classifier, generator).attribute(x, target=1)
    torch.testing.assert_close(of_probabilities.attribute(x, target=1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_a_binary_logit_gives_what_its_two_logits_give(
    classifier: nn.Module, generator: Generator, shape: tuple[int, ...]
):
    def logit(x: Tensor) -> Tensor:
        logits = classifier(x)
        return (logits[:, 1] - logits[:, 0]).view(shape)

    binary = DiffeomorphicCounterfactual(logit, generator, output="binary_logit")
    two = DiffeomorphicCounterfactual(lambda x: classifier(x)[:, :2], generator)
    for target in (1, [0, 1, 1]):
        torch.testing.assert_close(binary.attribute(images(3), target), two.attribute(images(3), target))


# Kinds of models


def test_kinds_of_forward_functions_give_one_answer(generator: Generator, classifier: nn.Module):
    x = images(3)
    expected = DiffeomorphicCounterfactual(classifier, generator).attribute(x, target=1)
    kinds: dict[str, Callable[..., Tensor]] = {
        "function": lambda x: classifier(x),
        "bound method": classifier.forward,
        "DataParallel": nn.DataParallel(classifier),
        "scripted": torch.jit.script(classifier),
        "traced": torch.jit.trace(classifier, x),
    }
    for name, function in kinds.items():
        received = DiffeomorphicCounterfactual(function, generator).attribute(x, target=1)
        torch.testing.assert_close(received, expected, msg=f"{name} differs")


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_mode_of_the_caller_does_not_matter(method: DiffeomorphicCounterfactual, context: Callable[[], Any]):
    def shifted(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return scale * method.forward_func(x) * torch.ones_like(shift[:, None]) + shift[:, None] * x.flatten(1)[:, :3]

    asked = DiffeomorphicCounterfactual(shifted, method.generator)
    expected = asked.counterfactual(images(3), torch.tensor([1, 2, 0]), (torch.ones(3), torch.tensor([2.0])))
    with context():
        # What is made in inference mode cannot be differentiated through as it is.
        arguments = torch.ones(3), torch.tensor([2.0])
        received = asked.counterfactual(images(3), torch.tensor([1, 2, 0]), arguments)
        attributions = asked.attribute(images(3), torch.tensor([1, 2, 0]), arguments)
        near = asked.counterfactual(
            images(3), torch.tensor([1, 2, 0]), arguments, goal=Near(torch.full((3,), 12.0), 1.0)
        )
    assert near.reached.all()
    assert torch.equal(received.counterfactuals, expected.counterfactuals)
    assert torch.equal(attributions, expected.attributions)
    assert not attributions.requires_grad


@pytest.mark.parametrize("internal_batch_size", [None, 1, 2])
def test_additional_arguments_belong_to_their_examples(
    classifier: nn.Module, generator: Generator, internal_batch_size: int | None
):
    scales = torch.tensor([1.0, 1.5, 2.0, 4.0])
    seen = set()

    def scaled(x: Tensor, scale: Tensor, offset: float, constant: Tensor, name: str | None) -> Tensor:
        seen.add((offset, tuple(constant.shape), name))
        return scale[:, None] * classifier(x) + offset + constant.sum()

    x = images(4)
    arguments = scales, 1.5, torch.ones(7), None
    method = DiffeomorphicCounterfactual(scaled, generator)
    together = method.counterfactual(x, 1, arguments, internal_batch_size=internal_batch_size)
    assert seen == {(1.5, (7,), None)}
    for row, scale in enumerate(scales):
        by_hand = DiffeomorphicCounterfactual(lambda x, scale=scale: scale * classifier(x), generator)
        alone = by_hand.counterfactual(x[row : row + 1], 1)
        assert (alone.counterfactuals - together.counterfactuals[row]).abs().max() <= 1e-4
        assert alone.steps[0] == together.steps[row]
    # A gentler model needs a longer way to the same confidence.
    assert together.steps.tolist() == sorted(together.steps.tolist(), reverse=True)
    assert len(set(together.steps.tolist())) > 1


def test_one_additional_argument_needs_no_tuple(classifier: nn.Module, generator: Generator):
    method = DiffeomorphicCounterfactual(lambda x, scale: scale * classifier(x), generator)
    assert torch.equal(method.attribute(images(3), 1, 2.0), method.attribute(images(3), 1, (2.0,)))


def test_a_model_in_half_precision_is_read_as_it_is(classifier: nn.Module, generator: Generator):
    method = DiffeomorphicCounterfactual(lambda x: classifier(x).bfloat16(), generator)
    attributions = method.attribute(images(3), target=1)
    assert attributions.dtype == torch.float32
    assert method.counterfactual(images(3), target=1).reached.all()


def test_autocast_around_the_call_does_not_break_the_search(method: DiffeomorphicCounterfactual):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = method.counterfactual(images(3), target=1)
    assert result.counterfactuals.dtype == torch.float32
    assert result.reached.all()


# Shapes and layouts


@pytest.mark.parametrize("shape", [(3, 2), (3, 5, 2), (3, 2, 3, 4), (2, 1, 2, 3, 2)])
def test_inputs_of_any_number_of_dimensions(shape: tuple[int, ...]):
    method = DiffeomorphicCounterfactual(lambda x: 200 * x.flatten(1)[:, :2], Pixels(shape[1:], None))
    attributions = method.attribute(torch.zeros(shape), target=1)
    assert attributions.shape == shape


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed", "expanded", "sliced"])
def test_attributions_are_contiguous_whatever_the_layout_of_the_inputs(
    method: DiffeomorphicCounterfactual, layout: str
):
    x = images(2)
    laid_out = {
        "contiguous": x,
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.mT.contiguous().mT,
        "expanded": x[:1].expand(2, 1, 4, 4),
        "sliced": torch.cat((x, x), dim=3)[..., :4],
    }[layout]
    attributions = method.attribute(laid_out, target=1)
    assert attributions.is_contiguous()
    expected = method.attribute(laid_out.clone(memory_format=torch.contiguous_format), target=1)
    torch.testing.assert_close(attributions, expected)
    assert method.perturb(laid_out, target=1).is_contiguous()


def test_channels_last_colour_images_give_contiguous_attributions():
    x = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    method = DiffeomorphicCounterfactual(lambda x: 200 * x.mean((2, 3)), Pixels((3, 4, 4)))
    attributions = method.attribute(x, target=1)
    assert attributions.shape == x.shape
    assert attributions.is_contiguous()
    attributions.view(2, -1)


def test_double_precision_stays_double(classifier: nn.Module, generator: Generator):
    method = DiffeomorphicCounterfactual(classifier.double(), generator.double())
    result = method.counterfactual(images(3).double(), target=1, refine=True, keep_path=True)
    assert result.reached.all()
    floats = [value for value in vars(result).values() if value.is_floating_point()]
    assert {value.dtype for value in floats} == {torch.float64}


# The warning


def test_failures_are_warned_of_once_with_their_number_and_reason(classifier: nn.Module):
    class Partial(Rotated):
        # Cannot represent images whose last pixel is 1, nor decode those whose last pixel is 0.
        def decode(self, z: Tensor) -> Tensor:
            decoded = super().decode(z)
            last = decoded[:, :, 3:, 3:]
            return torch.where(last > 0.99, decoded.flip(2), torch.where(last < 0.01, torch.nan, decoded))

    x = images(6)
    x[0, 0, 3, 3], x[1, 0, 3, 3] = 1.0, 0.0
    x[0, 0, 0], x[0, 0, 2], x[2, 0, 1] = 0.9, 0.8, 1.0
    x[2, 0, 0], x[2, 0, 2] = 0.0, 0.0
    method = DiffeomorphicCounterfactual(classifier, Partial())
    result = method.counterfactual(x, target=1, max_steps=1)
    assert result.statuses() == [
        Status.NOT_RECONSTRUCTED,
        Status.NOT_FINITE,
        Status.ALREADY_THERE,
        Status.BEST_EFFORT,
        Status.BEST_EFFORT,
        Status.BEST_EFFORT,
    ]
    for ask in (method.attribute, method.perturb, method):
        with pytest.warns(CounterfactualWarning) as caught:
            ask(x, target=1, max_steps=1)
        assert len(caught) == 1
        message = str(caught[0].message)
        assert message.startswith("5 of 6 examples were not reached")
        for part in ("1 NOT_RECONSTRUCTED", "1 NOT_FINITE", "3 BEST_EFFORT"):
            assert part in message


def test_the_warning_points_at_the_line_that_asked(method: DiffeomorphicCounterfactual):
    for ask in (method.attribute, method.perturb):
        with pytest.warns(CounterfactualWarning) as caught:
            ask(images(2), target=1, max_steps=1)
        assert caught[0].filename == __file__


def test_without_failures_there_is_no_warning(method: DiffeomorphicCounterfactual):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.attribute(images(3), target=1)
        method.counterfactual(images(3), target=1, max_steps=1)


def test_internal_batches_are_warned_of_together(method: DiffeomorphicCounterfactual):
    with pytest.warns(CounterfactualWarning, match="4 of 4") as caught:
        method.attribute(images(4), target=1, max_steps=1, internal_batch_size=1)
    assert len(caught) == 1


def test_progress_counts_the_examples_that_have_ended(
    method: DiffeomorphicCounterfactual, capsys: pytest.CaptureFixture[str]
):
    quiet = method.attribute(images(5), target=1, internal_batch_size=2)
    assert capsys.readouterr().err == ""
    shown = method.attribute(images(5), target=1, internal_batch_size=2, show_progress=True)
    last = capsys.readouterr().err.rstrip().split("\r")[-1]
    assert "Diffeomorphic Counterfactual" in last
    assert "5/5" in last
    assert torch.equal(quiet, shown)


# A method of one's own


def test_a_method_of_ones_own_writes_search_alone(classifier: nn.Module, generator: Generator, method):
    class Renamed(CounterfactualAttribution):
        def search(self, query: Any) -> Counterfactual:
            return method.search(query)

    own = Renamed(classifier, generator)
    plain = DiffeomorphicCounterfactual(classifier, generator, softening=0)
    assert torch.equal(own.attribute(images(3), target=1), plain.attribute(images(3), target=1))
    with pytest.raises(NotImplementedError, match="search"):
        CounterfactualAttribution(classifier, generator).attribute(images(1), target=1)


def test_a_generator_of_six_lines_is_enough():
    class Halved(Generator):
        def encode(self, x):
            return 2 * x.flatten(1)

        def decode(self, z):
            return (z / 2).view(len(z), 1, 4, 4)

    result = DiffeomorphicCounterfactual(RowClassifier(), Halved()).counterfactual(images(3), target=1)
    assert result.reached.all()


def test_a_method_can_be_copied(method: DiffeomorphicCounterfactual):
    twin = copy.deepcopy(method)
    assert torch.equal(twin.attribute(images(2), target=1), method.attribute(images(2), target=1))


def test_a_goal_of_a_class_is_what_target_is(classifier: nn.Module, generator: Generator):
    x = images(6)
    method = DiffeomorphicCounterfactual(classifier, generator)
    expected = method.counterfactual(x, target=2, confidence=0.9)
    assert torch.equal(method.perturb(x, goal=ReachClass(2, 0.9)), expected.counterfactuals)
    # But it may say otherwise.
    plain = DiffeomorphicCounterfactual(classifier, generator, softening=0)
    assert torch.equal(method.perturb(x, goal=ReachClass(2, 0.9, softening=0.0)), plain.perturb(x, 2, confidence=0.9))
    assert not torch.equal(plain.perturb(x, 2, confidence=0.9), expected.counterfactuals)


@pytest.mark.parametrize("goal", [ReachClass(2, 0.9), LeaveClass(0, 0.9)])
def test_a_goal_takes_the_output_for_what_the_method_does(classifier: nn.Module, generator: Generator, goal: Goal):
    x, probabilities = images(6), nn.Sequential(classifier, nn.Softmax(1)).eval()
    expected = DiffeomorphicCounterfactual(classifier, generator).counterfactual(x, goal=goal)
    result = DiffeomorphicCounterfactual(probabilities, generator, output="probabilities").counterfactual(x, goal=goal)
    assert result.statuses() == expected.statuses()
    torch.testing.assert_close(result.end_scores, expected.end_scores)
