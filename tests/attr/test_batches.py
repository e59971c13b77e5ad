r"""What an example gets depends on no other, and not on how many are searched at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import Rotated, images

from captum_dcf import Counterfactual, DiffeomorphicCounterfactual


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


@pytest.mark.parametrize("size", [1, 2, 4, 9, 100, "auto"])
def test_internal_batch_size_changes_nothing(searched: DiffeomorphicCounterfactual, size: int | str):
    x, target = images(9), [0, 1, 2] * 3
    whole = searched.counterfactual(x, target, max_steps=60, keep_path=True, refine=True)
    parts = searched.counterfactual(x, target, max_steps=60, keep_path=True, refine=True, internal_batch_size=size)
    assert (parts.counterfactuals - whole.counterfactuals).abs().max() <= 1e-4
    for name in ("steps", "status", "reached", "frame_rows"):
        assert torch.equal(getattr(parts, name), getattr(whole, name))
    for name in ("inputs", "reconstructions", "start_latents", "end_latents", "start_scores", "end_scores", "frames"):
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


def same(first: Counterfactual, second: Counterfactual) -> bool:
    return all(
        torch.equal(value, getattr(second, name)) if isinstance(value, Tensor) else value == getattr(second, name)
        for name, value in vars(first).items()
    )


def test_two_runs_are_equal_to_the_bit(searched: DiffeomorphicCounterfactual):
    asked = {"max_steps": 60, "refine": True, "keep_path": True}
    first, second = (searched.counterfactual(images(6), [0, 1, 2] * 2, **asked) for _ in range(2))
    assert same(first, second)


@pytest.mark.parametrize("internal_batch_size", [None, 1, 2])
def test_additional_arguments_belong_to_their_examples(
    classifier: nn.Module, generator: Rotated, internal_batch_size: int | None
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


def test_one_additional_argument_needs_no_tuple(classifier: nn.Module, generator: Rotated):
    method = DiffeomorphicCounterfactual(lambda x, scale: scale * classifier(x), generator)
    assert torch.equal(method.attribute(images(3), 1, 2.0), method.attribute(images(3), 1, (2.0,)))
