r"""The natural search, where the smallest valid radius is known; its scales; and what it draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import images

from captum_dcf import Generator, NaturalCounterfactual, Pixels, Status
from captum_dcf.search.shells import BLOCK

RADIUS = 1.5
# Δr of the 2-D problems below, in their own units.
WIDTH = 0.05


class Plane(Pixels):
    r"""Two coordinates, with the typical length that makes published radii those of the plane itself."""

    def __init__(self) -> None:
        super().__init__((2,), data_range=None)

    def typical_length(self, z: Tensor) -> Tensor:
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


class Wide(Pixels):
    r"""Coordinates of a standard normal, in which radii are looked at."""

    def __init__(self, dimensions: int) -> None:
        super().__init__((dimensions,), data_range=None)
        self.radii: list[Tensor] = []

    def decode(self, z: Tensor) -> Tensor:
        self.radii.append(z.detach().norm(dim=1))
        return super().decode(z)

    def typical_length(self, z: Tensor) -> Tensor:
        return Generator.typical_length(self, z)


def never(x: Tensor) -> Tensor:
    return torch.stack((x.flatten(1).sum(1) * 0, x.flatten(1).norm(dim=1) - 1e6), dim=1)


@pytest.mark.parametrize("dimensions", [4, 64, 256])
def test_radii_belong_to_64_dimensions(dimensions: int):
    generator = Wide(dimensions)
    method = NaturalCounterfactual(never, generator, "iterative", samples=64, shell_width=1.0, outermost=10.0)
    method.counterfactual(torch.zeros(1, dimensions), target=1)
    # After the reconstruction: ten shells of width 1, each drawn in two blocks, and their candidates judged once more.
    unit = (dimensions / 64) ** 0.5
    sampled = torch.cat([one for one in generator.radii if len(one) == BLOCK]) / unit
    assert len(sampled) == 10 * 64
    shells = sampled.view(10, 64)
    inside = torch.arange(10.0)[:, None]
    assert ((shells >= inside - 1e-4) & (shells <= inside + 1 + 1e-4)).all()
    # Uniform in the shell, from inside outwards.
    torch.testing.assert_close((shells - inside).mean(1), torch.full((10,), 0.5), rtol=0, atol=0.12)
    assert (shells.diff(dim=1) >= -1e-4).all()


def test_the_hybrid_search_begins_with_the_whole_ball_of_the_outermost_radius():
    generator = Wide(64)
    method = NaturalCounterfactual(never, generator, samples=320, outermost=10.0, max_samples=320)
    method.counterfactual(torch.zeros(1, 64), target=1)
    sampled = torch.cat([one for one in generator.radii if len(one) == BLOCK])
    assert len(sampled) == 320
    assert 9.8 < float(sampled.max()) <= 10 + 1e-4
    assert float(sampled.min()) < 0.2


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


def test_the_random_state_of_the_caller_is_left(classifier: nn.Module, generator: Generator):
    method = NaturalCounterfactual(classifier, generator, samples=64)
    before = torch.get_rng_state()
    first = method.perturb(images(2), target=1, confidence=0.7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(method.perturb(images(2), target=1, confidence=0.7), first)


@pytest.mark.parametrize("free", [slice(2, 5), torch.tensor([4, 2, 3])])
def test_samples_stay_in_the_free_coordinates(free: slice | Tensor):
    generator = Wide(6)
    generator.free = free
    method = NaturalCounterfactual(lambda x: 9 * x[:, 1:4], generator, samples=320)
    result = method.counterfactual(torch.zeros(2, 6), target=2)
    assert result.reached.all()
    moved = (result.end_latents - result.start_latents) != 0
    assert moved.tolist() == [[False, False, True, True, True, False]] * 2


def test_a_shell_is_decoded_only_as_far_as_the_first_valid_sample():
    decoded = []

    def model(x: Tensor) -> Tensor:
        decoded.append(len(x))
        return ring(x)

    method = NaturalCounterfactual(model, Plane(), samples=3200, shell_width=WIDTH, max_samples=3200)
    result = method.counterfactual(torch.zeros(1, 2), target=1, confidence=0.5)
    assert result.reached.all()
    # Of the ball of radius 10 a share of 0.15 lies within the valid radius.
    blocks = -(-int(3200 * RADIUS / 10) // BLOCK)
    assert blocks - 2 <= int(result.steps) <= blocks + 3
    # Input, reconstruction, and in each step a block and its candidate.
    assert sum(decoded) == 2 + int(result.steps) * (BLOCK + 1)
    assert max(decoded) == BLOCK


def test_patience_counts_the_empty_shells_in_a_row():
    def steps(patience: int) -> int:
        method = NaturalCounterfactual(ring, Plane(), samples=64, shell_width=0.2, patience=patience)
        return int(method.counterfactual(torch.zeros(1, 2), target=1, confidence=0.5).steps)

    # Nothing is valid within the radius: each further shell is looked at in vain, in two blocks.
    assert steps(3) - steps(2) == steps(4) - steps(3) == 2


def test_the_cap_on_samples_ends_the_search(classifier: nn.Module, generator: Generator):
    method = NaturalCounterfactual(classifier, generator, "iterative", samples=50, shell_width=1e-4, max_samples=199)
    assert method.default_max_steps == 3 * 2
    result = method.counterfactual(images(2), target=1)
    assert result.statuses() == [Status.STEP_LIMIT] * 2
    # Three shells of 50 samples, each in a block of 32 and one of 18.
    assert result.steps.tolist() == [6, 6]
    assert (result.end_scores > result.start_scores).all()


def test_no_gradient_is_needed(classifier: nn.Module, generator: Generator):
    def model(x: Tensor) -> Tensor:
        return torch.from_numpy(classifier(x).detach().numpy())

    method = NaturalCounterfactual(model, generator, samples=100)
    assert method.counterfactual(images(2), target=1, confidence=0.7).reached.all()


def test_the_defaults_are_the_papers(classifier: nn.Module, generator: Generator):
    method = NaturalCounterfactual(classifier, generator)
    settings = (method.strategy, method.samples, method.shell_width, method.outermost, method.patience)
    assert settings == ("hybrid", 5000, 0.01, 10.0, 5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"strategy": "shrinking"}, "received 'shrinking'"),
        ({"shell_width": 11.0}, "shell_width must be less than outermost, received 11.0 and 10.0"),
        ({"samples": 10, "max_samples": 9}, "samples must be at most max_samples, received 10 and 9"),
        ({"patience": 0}, "patience must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    classifier: nn.Module, generator: Generator, arguments: dict[str, object], words: str
):
    with pytest.raises(ValueError, match=words):
        NaturalCounterfactual(classifier, generator, **arguments)
