r"""A method of one's own: where it searches and how it goes on; everything else is inherited."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import Rotated, images

from captum_dcf import (
    AdversarialExample,
    AtLeast,
    ContrastiveCounterfactual,
    Counterfactual,
    CounterfactualAttribution,
    DiffeomorphicCounterfactual,
    Generator,
    LeaveClass,
    Pixels,
    PrototypeCounterfactual,
    ReachClass,
    Status,
    UnitGradient,
    __version__,
)
from captum_dcf.search import Ascent, Coordinates, Move, Problem, Searcher
from captum_dcf.search.record import RUNNING


class Brighter(Searcher):
    r"""One candidate: the image with a row made brighter."""

    gradient = False

    def start(self, problem: Problem, at: Any) -> dict[str, Tensor]:
        return {"tried": torch.zeros_like(at.reached)}

    def step(self, problem: Problem, at: Any, state: dict[str, Tensor]) -> Move:
        moved = at.points.clone()
        moved[:, 4:8] += 0.4
        ended = torch.where(state["tried"], int(Status.STALLED), RUNNING)
        return Move(moved, {"tried": torch.ones_like(state["tried"])}, ended)


class BrighterRow(CounterfactualAttribution):
    has_latents = False

    def coordinates(self, inputs: Tensor) -> Coordinates:
        return Pixels(tuple(inputs.shape[1:]))

    def searcher(self, problem: Problem, max_steps: int) -> Searcher:
        return Brighter()


def test_a_method_of_ones_own_is_two_functions(classifier: nn.Module):
    x = images(4)
    method = BrighterRow(classifier)
    result = method.counterfactual(x, target=[1, 1, 0, 2], confidence=0.8)
    assert result.statuses() == [Status.FOUND, Status.FOUND, Status.STALLED, Status.STALLED]
    assert result.steps.tolist() == [1, 1, 1, 1]
    expected = x.clone()
    expected[:, :, 1] += 0.4
    torch.testing.assert_close(result.counterfactuals[:2], expected[:2].clamp(0, 1))
    assert result.about["method"] == "BrighterRow"


def test_another_searcher_for_a_method_of_ours(classifier: nn.Module, generator: Generator):
    class Slow(DiffeomorphicCounterfactual):
        def searcher(self, problem: Problem, max_steps: int) -> Searcher:
            return Ascent(UnitGradient(0.05))

    ours = DiffeomorphicCounterfactual(classifier, generator, UnitGradient(0.05))
    expected = ours.perturb(images(3), target=1, confidence=0.8)
    assert torch.equal(Slow(classifier, generator).perturb(images(3), target=1, confidence=0.8), expected)


def test_any_object_with_the_coordinates_is_a_generator(classifier: nn.Module):
    class Plain:
        r"""No module, and nothing of ours."""

        exact = True
        free = slice(None)
        data_range = (0.0, 1.0)

        def encode(self, x: Tensor) -> Tensor:
            return 2 * x.flatten(1)

        def decode(self, z: Tensor) -> Tensor:
            return (z / 2).view(-1, 1, 4, 4)

        def typical_length(self, z: Tensor) -> Tensor:
            return torch.tensor(4.0)

        def log_prob(self, x: Tensor) -> Tensor:
            raise TypeError

        def check_ready(self) -> None:
            pass

        def constant(self) -> Any:
            return nullcontext()

    assert isinstance(Plain(), Coordinates)
    result = DiffeomorphicCounterfactual(classifier, Plain()).counterfactual(images(3), target=1)
    assert result.reached.all()
    assert result.about["generator"] == "Plain"


def test_c39_the_base_class_cannot_be_made(classifier: nn.Module):
    with pytest.raises(TypeError, match="abstract"):
        CounterfactualAttribution(classifier)

    class Half(CounterfactualAttribution):
        def coordinates(self, inputs: Tensor) -> Coordinates:
            return Pixels((1, 4, 4))

    with pytest.raises(TypeError, match="searcher"):
        Half(classifier)


# What a result says of how it came to be


def test_a_result_says_how_it_came_to_be(classifier: nn.Module, generator: Generator, tmp_path: Path):
    method = DiffeomorphicCounterfactual(classifier, generator, normalize=(0.0, [1.0]))
    result = method.counterfactual(images(2), target=[1, 2], confidence=0.9, max_steps=7, refine=True)
    about = result.about
    assert about["method"] == "DiffeomorphicCounterfactual"
    assert about["goal"] == "ReachClass(label=[1, 2], confidence=0.9)"
    assert about["target"] == [1, 2]
    assert (about["model"], about["generator"]) == ("RowClassifier", "Rotated")
    assert about["versions"] == {"captum_dcf": __version__, "torch": torch.__version__}
    assert about["settings"] == {
        "output": "logits",
        "select": None,
        "normalize": [0.0, [1.0]],
        "step_rule": None,
        "softening": 1.5,
        "max_steps": 7,
        "max_seconds": None,
        "refine": True,
        "min_percentile": None,
        "search_unreconstructed": False,
    }
    assert json.loads(json.dumps(about)) == about
    result.save(tmp_path / "result.safetensors")
    assert Counterfactual.load(tmp_path / "result.safetensors").about == about


@pytest.mark.parametrize("target", [np.int64(1), torch.tensor(1), [np.int32(1), torch.tensor(1)]])
def test_targets_of_every_kind_are_said_as_numbers(method: DiffeomorphicCounterfactual, target: Any):
    about = method.counterfactual(images(2), target, confidence=0.6).about
    assert about["target"] == ([1, 1] if isinstance(target, list) else 1)
    assert json.loads(json.dumps(about)) == about


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
def test_every_method_says_it_in_json(any_method: CounterfactualAttribution):
    result = any_method.counterfactual(images(2), target=torch.tensor([1, 2]), confidence=0.8)
    about = result.about
    assert json.loads(json.dumps(about)) == about
    assert about["method"] == type(any_method).__name__
    assert about["target"] == [1, 2]
    assert about["settings"]["max_steps"] == any_method.default_max_steps
    # In two lines, short enough to be read.
    assert len(repr(result).splitlines()) == 2
    assert about["method"] in repr(result)
    assert about["goal"] in repr(result)


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        (ReachClass(torch.tensor([1, 1]), 0.8), "ReachClass(label=1, confidence=0.8)"),
        (LeaveClass(0, 0.6), "LeaveClass(label=0, confidence=0.6)"),
        (AtLeast(5.0), "AtLeast(value=5.0)"),
    ],
)
def test_a_goal_is_said_with_its_values(classifier: nn.Module, generator: Generator, goal: Any, words: str):
    target = 1 if isinstance(goal, AtLeast) else None
    result = DiffeomorphicCounterfactual(classifier, generator).counterfactual(images(2), target, goal=goal)
    assert result.about["goal"] == words


def test_a_contrastive_goal_names_the_goal_in_it(classifier: nn.Module):
    method = ContrastiveCounterfactual(classifier, Rotated(), kappa=0.2, c=100.0, outer_steps=1)
    about = method.counterfactual(images(1), target=1, confidence=0.5, max_steps=20).about
    assert about["goal"] == "ReachClass(label=1, confidence=0.5)"
    assert about["settings"]["autoencoder"] == "Rotated"


def test_a_large_tensor_is_said_by_its_shape(classifier: nn.Module, generator: Generator):
    method = PrototypeCounterfactual(classifier, torch.rand(30, 1, 4, 4), generator, theta=1.0)
    about = method.counterfactual(images(1), target=1, max_steps=2).about
    assert about["settings"]["reference"] == "tensor (30, 1, 4, 4)"


def test_a_function_is_said_by_its_name(classifier: nn.Module):
    def mine(x: Tensor) -> Tensor:
        return classifier(x)

    def first(output: Tensor) -> Tensor:
        return output

    method = AdversarialExample(mine, step_rule=UnitGradient(0.1), select=first)
    about = method.counterfactual(images(1), target=1, confidence=0.5).about
    assert about["model"].endswith("mine")
    assert about["settings"]["select"].endswith("first")
    assert about["settings"]["step_rule"] == "UnitGradient(length=0.1, patience=100)"
    assert about["generator"] == "Pixels"
