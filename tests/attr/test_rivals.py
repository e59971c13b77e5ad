r"""What every rival owes its caller, whatever its way of searching."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from captum.robust import FGSM, PGD
from torch import Tensor, nn
from torch.nn import functional as F
from toys import Rotated, RowClassifier, images

from captum_dcf import (
    Adam,
    AdversarialExample,
    ContrastiveCounterfactual,
    CounterfactualAttribution,
    CounterfactualWarning,
    Generator,
    LatentShift,
    NaturalCounterfactual,
    PerturbationCounterfactual,
    PrototypeCounterfactual,
    Revise,
    Status,
)

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")

TARGETS = [0, 1, 2, 0, 1, 2]
CONFIDENCE = 0.8

Make = Callable[[nn.Module, Generator], CounterfactualAttribution]


def attack_loss(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


def pgd(f: nn.Module, g: Generator) -> CounterfactualAttribution:
    settings = {"radius": 0.4, "step_size": 0.05, "step_num": 10}
    return PerturbationCounterfactual(f, g, PGD(f, attack_loss, 0.0, 1.0), settings)


def fgsm(f: nn.Module, g: Generator) -> CounterfactualAttribution:
    return PerturbationCounterfactual(f, g, FGSM(f, attack_loss, 0.0, 1.0), {"epsilon": 0.3})


def prototype(f: nn.Module, g: Generator) -> CounterfactualAttribution:
    reference = torch.rand(100, 1, 4, 4, generator=torch.Generator().manual_seed(9))
    return PrototypeCounterfactual(f, g, reference, theta=1.0, c=100.0)


MAKERS: dict[str, Make] = {
    "revise": Revise,
    "natural hybrid": lambda f, g: NaturalCounterfactual(f, g, samples=100, shell_width=0.05),
    "natural iterative": lambda f, g: NaturalCounterfactual(f, g, "iterative", samples=100, shell_width=0.3),
    "prototype": prototype,
    "contrastive": lambda f, g: ContrastiveCounterfactual(f, g, c=100.0, outer_steps=2),
    "latent shift": LatentShift,
    "adversarial": lambda f, g: AdversarialExample(f, g, Adam(0.02)),
    "pgd": pgd,
    "fgsm": fgsm,
}
STEPS = {"prototype": 80, "contrastive": 80}
WITHOUT_REFINE = ["natural hybrid", "natural iterative", "prototype", "contrastive", "pgd", "fgsm"]


@pytest.fixture(params=MAKERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def rival(name: str, classifier: nn.Module, generator: Generator) -> CounterfactualAttribution:
    method = MAKERS[name](classifier, generator)
    method.default_max_steps = STEPS.get(name, method.default_max_steps)
    return method


def test_a_batch_gives_what_each_example_gives_alone(name: str, rival: CounterfactualAttribution):
    # Rounding differs with the size of a batch; thresholds and a weight of 1,000 on the gradient magnify it.
    tolerance = 2e-3 if name in ("prototype", "contrastive") else 1e-4
    x = images(6)
    together = rival.counterfactual(x, TARGETS, confidence=CONFIDENCE)
    assert together.reached.sum() >= 5
    for row, target in enumerate(TARGETS):
        alone = rival.counterfactual(x[row : row + 1], target, confidence=CONFIDENCE)
        assert (alone.counterfactuals - together.counterfactuals[row]).abs().max() <= tolerance
        assert alone.status[0] == together.status[row]
        assert alone.steps[0] == together.steps[row]


def test_internal_batch_size_changes_nothing(name: str, rival: CounterfactualAttribution):
    tolerance = 2e-3 if name in ("prototype", "contrastive") else 1e-4
    whole = rival.counterfactual(images(6), TARGETS, confidence=CONFIDENCE)
    parts = rival.counterfactual(images(6), TARGETS, confidence=CONFIDENCE, internal_batch_size=4)
    assert (parts.counterfactuals - whole.counterfactuals).abs().max() <= tolerance
    assert torch.equal(parts.status, whole.status)


def test_the_three_ways_to_ask_agree_and_repeat(rival: CounterfactualAttribution):
    x = images(3)
    asked = {"target": torch.tensor([0, 1, 2]), "confidence": CONFIDENCE}
    result = rival.counterfactual(x, **asked)
    (attributions,), (counterfactuals,) = rival.attribute((x,), **asked), rival.perturb((x,), **asked)
    assert torch.equal(counterfactuals, result.counterfactuals)
    assert torch.equal(attributions, result.counterfactuals - x)
    assert attributions.shape == x.shape
    assert attributions.dtype == x.dtype
    assert attributions.is_contiguous()
    assert not attributions.requires_grad


def test_what_is_said_to_be_found_is_found(
    rival: CounterfactualAttribution, classifier: nn.Module, generator: Generator
):
    x = images(6)
    result = rival.counterfactual(x, TARGETS, confidence=CONFIDENCE)
    probabilities = classifier(result.counterfactuals).softmax(1).gather(1, torch.tensor(TARGETS)[:, None]).squeeze(1)
    assert torch.equal(probabilities > CONFIDENCE, result.reached)
    torch.testing.assert_close(probabilities, result.end_scores, rtol=1e-4, atol=1e-5)
    assert result.counterfactuals.min() >= 0
    assert result.counterfactuals.max() <= 1
    torch.testing.assert_close(result.start_latents, generator.encode(x))
    # Latents and images tell the same story, but for what was clamped.
    with torch.no_grad():
        decoded = generator.decode(result.end_latents).clamp(0, 1)
    torch.testing.assert_close(decoded, result.counterfactuals, rtol=1e-4, atol=1e-5)


def test_an_input_that_is_there_is_returned_as_it_is(rival: CounterfactualAttribution):
    x = images(2)
    x[0, 0, 1] = 1.0
    x[0, 0, [0, 2]] = 0.0
    result = rival.counterfactual(x, target=1, confidence=CONFIDENCE)
    assert result.statuses()[0] == Status.ALREADY_THERE
    assert torch.equal(result.counterfactuals[0], x[0])
    assert result.steps.tolist()[0] == 0
    assert rival.counterfactual(x[:1], target=1, confidence=CONFIDENCE).statuses() == [Status.ALREADY_THERE]


def test_what_is_not_found_is_finite_and_warned_of(name: str, generator: Generator):
    def unwilling(x: Tensor) -> Tensor:
        scores = x.flatten(1)[:, :2] * 0.1
        return scores - torch.tensor([0.0, 5.0])

    method = MAKERS[name](unwilling, generator)
    if name == "prototype":
        with pytest.raises(ValueError, match="none of the 100 reference images 1"):
            method.attribute(images(2), target=1)
        return
    result = method.counterfactual(images(2), target=1, max_steps=20)
    assert not result.reached.any()
    assert set(result.statuses()) <= {Status.BEST_EFFORT, Status.STALLED, Status.NOT_FINITE}
    assert result.counterfactuals.isfinite().all()
    assert (result.end_scores >= result.start_scores).all()
    with pytest.warns(CounterfactualWarning, match="2 of 2 examples were not reached"):
        method.attribute(images(2), target=1, max_steps=20)


def test_nothing_of_the_callers_changes(rival: CounterfactualAttribution):
    modules = rival.forward_func, rival.generator
    x = images(3)
    before = x.clone(), [copy.deepcopy(module.state_dict()) for module in modules], torch.get_rng_state()
    rival.counterfactual(x, target=1, confidence=CONFIDENCE)
    assert torch.equal(x, before[0])
    assert not x.requires_grad
    assert x.grad is None
    for module, state in zip(modules, before[1]):
        assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
        assert all(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())
        assert not module.training
    assert torch.equal(torch.get_rng_state(), before[2])


def test_it_works_in_double_precision(name: str):
    method = MAKERS[name](RowClassifier().double().eval(), Rotated().double().eval())
    if name == "prototype":
        method.reference = method.reference.double()
    x = images(2).double()
    attributions = method.attribute(x, target=1, confidence=0.5, max_steps=STEPS.get(name))
    assert attributions.dtype == torch.float64


def test_a_progress_bar_counts_to_the_end(rival: CounterfactualAttribution, capsys: pytest.CaptureFixture[str]):
    rival.counterfactual(images(3), target=1, confidence=CONFIDENCE, show_progress=True)
    assert "3/3" in capsys.readouterr().err


def test_what_has_no_meaning_is_refused_by_name(name: str, rival: CounterfactualAttribution):
    if name in WITHOUT_REFINE:
        for knob in ("refine", "keep_path"):
            with pytest.raises(ValueError, match=f"{knob}=False only"):
                rival.counterfactual(images(1), target=1, **{knob: True})
    else:
        result = rival.counterfactual(images(2), target=1, confidence=CONFIDENCE, refine=True, keep_path=True)
        assert result.path.shape == (int(result.steps.max()) + 1, 2, 1, 4, 4)


def test_a_model_without_gradient_is_refused(name: str, classifier: nn.Module, generator: Generator):
    def detached(x: Tensor) -> Tensor:
        return classifier(x.detach())

    if name.startswith("natural"):
        pytest.skip("takes no gradients")
    if name in ("pgd", "fgsm"):
        pytest.skip("what its perturbation differentiates is its own affair")
    with pytest.raises(ValueError, match="does not depend differentiably on its input"):
        MAKERS[name](detached, generator).counterfactual(images(1), target=1)
