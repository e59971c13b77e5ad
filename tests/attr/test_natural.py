r"""The natural search, where the smallest valid radius is known; and the order in which it looks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import images

from captum_dcf import Generator, NaturalCounterfactual, Pixels, Status
from captum_dcf.attr.natural import BLOCK, _directions, _source

RADIUS = 1.5
# Δr of the 2-D problems below, in their own units.
WIDTH = 0.05


class Plane(Pixels):
    r"""Two coordinates, with the typical length that makes published radii those of the plane itself."""

    def __init__(self) -> None:
        super().__init__((2,), data_range=None)

    def typical_length(self, latents: Tensor) -> Tensor:
        return torch.tensor(8.0)


def ring(x: Tensor) -> Tensor:
    r"""Class 1 from the radius on, whatever the direction: the smallest valid radius is exactly ``RADIUS``."""
    return torch.stack((torch.zeros(len(x)), 100 * (x.norm(dim=1) - RADIUS)), dim=1)


def half_plane(x: Tensor) -> Tensor:
    r"""Class 1 right of a line at the distance ``RADIUS`` from the origin."""
    return torch.stack((torch.zeros(len(x)), 100 * (x @ torch.tensor([0.6, 0.8]) - RADIUS)), dim=1)


@pytest.mark.parametrize("strategy", ["hybrid", "iterative"])
@pytest.mark.parametrize("model", [ring, half_plane])
def test_the_smallest_valid_radius_is_found(strategy: str, model: object):
    method = NaturalCounterfactual(model, Plane(), strategy, samples=600, shell_width=WIDTH)
    result = method.counterfactual(torch.zeros(3, 2), target=1, confidence=0.5)
    assert result.statuses() == [Status.FOUND] * 3
    radii = (result.end_latents - result.start_latents).norm(dim=1)
    assert (radii > RADIUS - 1e-5).all()
    assert (radii < RADIUS + WIDTH).all()


def test_the_hybrid_search_leaves_an_outer_island_for_an_inner_one():
    def islands(x: Tensor) -> Tensor:
        # Everything from 6 on is valid, and so is a ring around 2 which the first halves of shells jump over.
        radius = x.norm(dim=1)
        valid = (radius > 6) | ((radius - 2.05).abs() < 0.05)
        return torch.stack((torch.zeros(len(x)), torch.where(valid, 5.0, -5.0)), dim=1)

    method = NaturalCounterfactual(islands, Plane(), samples=1000, shell_width=WIDTH)
    result = method.counterfactual(torch.zeros(1, 2), target=1)
    assert 2.0 <= float(result.end_latents.norm()) <= 2.0 + WIDTH


def test_radii_belong_to_64_dimensions(classifier: nn.Module):
    def never(x: Tensor) -> Tensor:
        return torch.stack((x.flatten(1).sum(1) * 0, x.flatten(1).norm(dim=1) - 1e6), dim=1)

    seen = []
    for dimensions in (4, 64, 256):
        generator = Wide(dimensions)
        method = NaturalCounterfactual(never, generator, "iterative", 64, 1.0, 10.0)
        method.counterfactual(torch.zeros(1, dimensions), target=1)
        seen.append(generator.farthest)
    # 10 shells of width 1 and 2,560 samples come close to the outermost radius, 10 √D / 8.
    assert seen == pytest.approx([2.5, 10.0, 20.0], rel=0.02)


class Wide(Pixels):
    def __init__(self, dimensions: int) -> None:
        super().__init__((dimensions,), data_range=None)
        self.farthest = 0.0

    def decode(self, z: Tensor) -> Tensor:
        self.farthest = max(self.farthest, float(z.norm(dim=1).max()))
        return super().decode(z)

    def typical_length(self, latents: Tensor) -> Tensor:
        return Generator.typical_length(self, latents)


@pytest.mark.parametrize("strategy", ["hybrid", "iterative"])
def test_what_is_found_does_not_depend_on_the_batch(classifier: nn.Module, generator: Generator, strategy: str):
    x, target = images(5), [0, 1, 2, 0, 1]
    method = NaturalCounterfactual(classifier, generator, strategy, samples=100, shell_width=0.1)
    together = method.counterfactual(x, target, confidence=0.7)
    assert together.reached.all()
    for row in range(5):
        alone = method.counterfactual(x[row : row + 1], target[row], confidence=0.7)
        torch.testing.assert_close(alone.counterfactuals[0], together.counterfactuals[row])
        assert alone.steps[0] == together.steps[row]


def test_another_seed_gives_other_samples(classifier: nn.Module, generator: Generator):
    x = images(2)
    settings = {"samples": 64, "shell_width": 0.1}
    first, same, other = (
        NaturalCounterfactual(classifier, generator, **settings, seed=seed).perturb(x, target=1, confidence=0.7)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_directions_are_of_unit_length_and_stay_in_the_free_coordinates():
    directions = _directions(torch.zeros(1, 6), 1000, slice(2, 5), _source(torch.zeros(1), 0))
    assert (directions[:, :2] == 0).all()
    assert (directions[:, 5:] == 0).all()
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(1000))
    assert directions.mean(0).abs().max() < 0.06


def test_a_round_is_decoded_only_as_far_as_the_first_valid_sample():
    decoded = []

    def model(x: Tensor) -> Tensor:
        decoded.append(len(x))
        return ring(x)

    method = NaturalCounterfactual(model, Plane(), samples=3200, shell_width=WIDTH, max_samples=3200)
    result = method.counterfactual(torch.zeros(1, 2), target=1, confidence=0.5)
    assert result.steps.tolist() == [1]
    assert sum(decoded) <= 2 + 3200 * 0.2
    assert max(decoded) == BLOCK


def test_the_cap_on_samples_ends_the_search(classifier: nn.Module, generator: Generator):
    method = NaturalCounterfactual(classifier, generator, "iterative", samples=50, shell_width=1e-4, max_samples=199)
    result = method.counterfactual(images(2), target=1)
    assert result.statuses() == [Status.BEST_EFFORT] * 2
    assert result.steps.tolist() == [3, 3]
    assert (result.end_scores > result.start_scores).all()


def test_no_gradient_is_needed(classifier: nn.Module, generator: Generator):
    def model(x: Tensor) -> Tensor:
        return torch.from_numpy(classifier(x).detach().numpy())

    method = NaturalCounterfactual(model, generator, samples=100)
    assert method.counterfactual(images(2), target=1, confidence=0.7).reached.all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"strategy": "shrinking"}, "received 'shrinking'"),
        ({"shell_width": 0.0}, "0 < shell_width < outermost"),
        ({"shell_width": 11.0}, "0 < shell_width < outermost"),
        ({"samples": 0}, "1 <= samples <= max_samples"),
        ({"samples": 10, "max_samples": 9}, "received 10 and 9"),
        ({"patience": 0}, "patience must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    classifier: nn.Module, generator: Generator, arguments: dict[str, object], words: str
):
    with pytest.raises(ValueError, match=words):
        NaturalCounterfactual(classifier, generator, **arguments)
