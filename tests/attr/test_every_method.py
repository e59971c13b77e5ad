r"""What every method owes its caller, whatever its way of searching."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from toys import Rotated, RowClassifier, images

from captum_dcf import AtLeast, CounterfactualAttribution, CounterfactualWarning, Generator, Goal, Status, Verdict

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")

TARGETS = [0, 1, 2, 0, 1, 2]
CONFIDENCE = 0.8
Make = Callable[..., CounterfactualAttribution]


def tolerance(name: str) -> float:
    # Rounding differs with the size of a batch; thresholds and a weight of 1,000 on the gradient magnify it.
    return 2e-3 if name in ("prototype", "contrastive") else 1e-4


def test_a_batch_gives_what_each_example_gives_alone(name: str, any_method: CounterfactualAttribution):
    x = images(6)
    together = any_method.counterfactual(x, TARGETS, confidence=CONFIDENCE)
    assert together.reached.sum() >= 5
    for row, target in enumerate(TARGETS):
        alone = any_method.counterfactual(x[row : row + 1], target, confidence=CONFIDENCE)
        assert (alone.counterfactuals - together.counterfactuals[row]).abs().max() <= tolerance(name)
        assert alone.status[0] == together.status[row]
        assert alone.steps[0] == together.steps[row]


def test_internal_batch_size_changes_nothing(name: str, any_method: CounterfactualAttribution):
    whole = any_method.counterfactual(images(6), TARGETS, confidence=CONFIDENCE)
    parts = any_method.counterfactual(images(6), TARGETS, confidence=CONFIDENCE, internal_batch_size=4)
    assert (parts.counterfactuals - whole.counterfactuals).abs().max() <= tolerance(name)
    assert torch.equal(parts.status, whole.status)


def test_the_three_ways_to_ask_agree_and_repeat(any_method: CounterfactualAttribution):
    x = images(3)
    asked = {"target": torch.tensor([0, 1, 2]), "confidence": CONFIDENCE}
    result = any_method.counterfactual(x, **asked)
    (attributions,), (counterfactuals,) = any_method.attribute((x,), **asked), any_method.perturb((x,), **asked)
    assert torch.equal(counterfactuals, result.counterfactuals)
    assert torch.equal(attributions, result.counterfactuals - x)
    assert attributions.shape == x.shape
    assert attributions.dtype == x.dtype
    assert attributions.is_contiguous()
    assert not attributions.requires_grad


def test_what_is_said_to_be_found_is_found(
    any_method: CounterfactualAttribution, in_latents: bool, classifier: torch.nn.Module, generator: Generator
):
    x = images(6)
    result = any_method.counterfactual(x, TARGETS, confidence=CONFIDENCE)
    probabilities = classifier(result.counterfactuals).softmax(1).gather(1, torch.tensor(TARGETS)[:, None]).squeeze(1)
    assert torch.equal(probabilities > CONFIDENCE, result.reached)
    torch.testing.assert_close(probabilities, result.end_scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result.attributions, result.latent_change + result.reconstruction_error)
    assert result.counterfactuals.min() >= 0
    assert result.counterfactuals.max() <= 1
    assert (result.start_latents is not None) == in_latents
    if not in_latents:
        assert torch.equal(result.reconstructions, x)
        result = result.with_latents(generator)
    torch.testing.assert_close(result.start_latents, generator.encode(x))
    # Latents and images tell the same story, but for what was clamped.
    with torch.no_grad():
        decoded = generator.decode(result.end_latents).clamp(0, 1)
    torch.testing.assert_close(decoded, result.counterfactuals, rtol=1e-4, atol=1e-4)


def test_an_input_that_is_there_is_returned_as_it_is(any_method: CounterfactualAttribution):
    x = images(2)
    x[0, 0, 1] = 1.0
    x[0, 0, [0, 2]] = 0.0
    result = any_method.counterfactual(x, target=1, confidence=CONFIDENCE)
    assert result.statuses()[0] == Status.ALREADY_THERE
    assert torch.equal(result.counterfactuals[0], x[0])
    assert result.steps.tolist()[0] == 0
    assert any_method.counterfactual(x[:1], target=1, confidence=CONFIDENCE).statuses() == [Status.ALREADY_THERE]


def test_what_is_not_found_is_finite_and_warned_of(name: str, make: Make, generator: Generator):
    def unwilling(x: torch.Tensor) -> torch.Tensor:
        scores = x.flatten(1)[:, :2] * 0.1
        return scores - torch.tensor([0.0, 5.0])

    method = make(unwilling, generator)
    if name == "prototype":
        with pytest.raises(ValueError, match="none of the 100 reference images 1"):
            method.attribute(images(2), target=1)
        return
    result = method.counterfactual(images(2), target=1, max_steps=20)
    assert not result.reached.any()
    assert set(result.statuses()) <= {Status.STEP_LIMIT, Status.STALLED, Status.NOT_FINITE}
    assert result.counterfactuals.isfinite().all()
    assert (result.end_scores >= result.start_scores).all()
    with pytest.warns(CounterfactualWarning, match="found for 2 of 2 examples"):
        method.attribute(images(2), target=1, max_steps=20)


def test_it_works_in_double_precision(make: Make):
    method = make(RowClassifier().double().eval(), Rotated().double().eval())
    attributions = method.attribute(images(2).double(), target=1, confidence=0.5)
    assert attributions.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_c14_it_works_in_half_precision(make: Make, dtype: torch.dtype):
    method = make(RowClassifier().to(dtype).eval(), Rotated().to(dtype).eval())
    result = method.counterfactual(images(2).to(dtype), target=1, confidence=0.5)
    assert result.counterfactuals.dtype == dtype
    assert result.reached.all()


@pytest.mark.parametrize("shape", [(12,), (3, 4), (2, 2, 3, 1)])
def test_c11_inputs_need_not_be_images(name: str, make: Make, shape: tuple[int, ...]):
    class Halved(Generator):
        data_range = (0.0, 1.0)

        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x.flatten(1)

        def decode(self, z: torch.Tensor) -> torch.Tensor:
            return (z / 2).view(-1, *shape)

    method = make(lambda x: 8 * x.flatten(1)[:, :2], Halved())
    if name == "prototype":
        method.reference = torch.rand(20, *shape)
    x = torch.full((2, *shape), 0.4)
    result = method.counterfactual(x, target=1, confidence=0.7)
    assert result.attributions.shape == x.shape
    assert result.reached.all()


def test_a_progress_bar_counts_to_the_end(any_method: CounterfactualAttribution, capsys: pytest.CaptureFixture[str]):
    any_method.counterfactual(images(3), target=1, confidence=CONFIDENCE, show_progress=True)
    shown = capsys.readouterr().err
    assert any_method.get_name() in shown
    assert "3/3" in shown.split("\r")[-1]


def test_a_path_leads_to_the_counterfactual(any_method: CounterfactualAttribution):
    result = any_method.counterfactual(images(3), target=1, confidence=CONFIDENCE, keep_path=True)
    assert result.reached.all()
    assert len(result.path) == 3
    for row, frames in enumerate(result.path):
        assert len(frames) <= int(result.steps[row]) + 1
        torch.testing.assert_close(frames[0], result.reconstructions[row])
        # A search for a nearer one goes on behind what it found first.
        assert (frames - result.counterfactuals[row]).abs().flatten(1).amax(1).min() <= 1e-6


@pytest.mark.parametrize("option", ["refine", "latents"])
def test_what_has_no_meaning_is_refused_by_name(
    name: str, any_method: CounterfactualAttribution, generator: Generator, option: str
):
    takes = {
        "refine": ("diffeomorphic", "revise", "latent shift", "adversarial"),
        "latents": ("diffeomorphic", "revise", "latent shift", "natural hybrid", "natural iterative"),
    }
    value = {"refine": True, "latents": generator.encode(images(2))}[option]
    asked = {"target": 1, "confidence": CONFIDENCE, option: value}
    if name in takes[option]:
        assert any_method.counterfactual(images(2), **asked).reached.all()
    else:
        with pytest.raises(ValueError, match=rf"{option}=(False|None) only"):
            any_method.counterfactual(images(2), **asked)


def test_a_model_without_gradient_is_refused(
    name: str, make: Make, is_attack: bool, classifier: torch.nn.Module, generator: Generator
):
    def detached(x: torch.Tensor) -> torch.Tensor:
        return classifier(x.detach())

    if name.startswith("natural"):
        pytest.skip("takes no gradients")
    if is_attack:
        pytest.skip("what its perturbation differentiates is its own affair")
    with pytest.raises(ValueError, match="does not depend differentiably on its input"):
        make(detached, generator).counterfactual(images(1), target=1)


@pytest.mark.parametrize("field", ["loss", "score", "reached"])
@pytest.mark.parametrize("wrong", ["column", "scalar", "none"])
def test_c17_a_goal_that_gives_no_verdict_per_example_is_named(
    name: str, any_method: CounterfactualAttribution, field: str, wrong: str
):
    class Odd(Goal):
        def judge(self, output: torch.Tensor, rows: torch.Tensor, softening: float = 0.0) -> Verdict:
            value = output[:, 0]
            verdict = Verdict(-value, value.detach(), value.detach() > 100)
            odd = {"column": lambda one: one[:, None], "scalar": lambda one: one.sum(), "none": lambda one: None}[wrong]
            return verdict._replace(**{field: odd(getattr(verdict, field))})

    if name in ("contrastive", "prototype", "pgd", "fgsm"):
        with pytest.raises(ValueError, match=r"accepts target=.*received Odd"):
            any_method.counterfactual(images(3), goal=Odd())
    else:
        with pytest.raises((TypeError, ValueError), match=rf"Odd\.judge must give .*{field}"):
            any_method.counterfactual(images(3), goal=Odd())


def test_c17_reached_has_to_be_bool(name: str, any_method: CounterfactualAttribution):
    class Numbers(Goal):
        def judge(self, output: torch.Tensor, rows: torch.Tensor, softening: float = 0.0) -> Verdict:
            value = output[:, 0]
            return Verdict(-value, value.detach(), (value.detach() > 100).long())

    if name not in ("contrastive", "prototype", "pgd", "fgsm"):
        with pytest.raises(TypeError, match=r"reached as bool, received torch.int64"):
            any_method.counterfactual(images(3), goal=Numbers())


def test_goals_of_values_are_refused_where_there_is_no_class(name: str, any_method: CounterfactualAttribution):
    if name in ("contrastive", "prototype", "pgd", "fgsm"):
        with pytest.raises(ValueError, match="received AtLeast"):
            any_method.counterfactual(images(2), target=1, goal=AtLeast(2.0))
    else:
        assert any_method.counterfactual(images(2), target=1, goal=AtLeast(5.0)).reached.all()
