r"""Shells: samples from inside outwards, their radii, their end, their seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from plane import Counting, Plane, at, plane, problem, run, two_logits
from torch import Tensor

from captum_dcf.search import Ascent, Problem, Status, UnitGradient, shells
from captum_dcf.search.record import RUNNING
from captum_dcf.search.searcher import State
from captum_dcf.search.shells import BLOCK, Shells

# On the plane points have typically the length √2; these are shells of width ½ up to 4.
OUTWARD = Shells(width=0.5 / 2**0.5, outermost=4 / 2**0.5, samples=64, shells=100, hybrid=False)
HYBRID = replace(OUTWARD, width=0.1 / 2**0.5, hybrid=True)
THRESHOLD = torch.tensor(9.0).log() / 5
START = at(-1.0, 0.0, -2.0, 0.3)
NEAREST = THRESHOLD - START[:, 0]  # how far the goal is


@pytest.mark.parametrize("searcher", [OUTWARD, HYBRID], ids=["outward", "hybrid"])
def test_what_is_found_is_near_the_nearest_there_is(searcher: Shells):
    result = run(START, searcher=searcher, max_steps=1000)
    assert result.statuses() == [Status.FOUND] * 4
    distance = (result.end_latents - result.start_latents).norm(dim=1)
    assert (distance >= NEAREST).all()
    # Within the shell of the goal's surface, or the one behind it.
    assert (distance <= NEAREST + (1.0 if searcher is OUTWARD else 0.3)).all()


def test_the_hybrid_search_is_nearer_than_its_first_find():
    decode = Counting(plane)
    result = run(at(-1.0), decode, searcher=HYBRID, max_steps=1000, keep_path=True)
    radii = (result.path[0] - result.path[0][0]).norm(dim=1)
    found = result.path[0][:, 0] > THRESHOLD
    first = radii[found][0]
    end = (result.end_latents - result.start_latents).norm()
    assert end < first
    torch.testing.assert_close(end, radii[found].min())


def _samples_of(
    searcher: Shells, start: Tensor, rounds: int, reached_at: float = 1e9, free=slice(None)
) -> list[Tensor]:
    """The samples of each round, (n, samples of a block, D), where the goal lies beyond a radius of ``reached_at``."""
    seen: list[Tensor] = []

    def decode(z: Tensor) -> Tensor:
        seen.append(z.clone())
        return z

    def predict(points: Tensor, rows: Tensor) -> Tensor:
        return two_logits(points - 99, rows)

    run(start, decode, predict, searcher=searcher, max_steps=rounds, free=free)
    n = len(start)
    return [batch.view(n, -1, start.shape[1]) for batch in seen if len(batch) > n]


def test_outward_shells_are_tried_block_by_block_from_inside():
    blocks = _samples_of(OUTWARD, torch.zeros(1, 2), 8)
    radii = [block.norm(dim=2)[0] for block in blocks]
    assert [len(block) for block in radii] == [BLOCK] * 8
    for number, block in enumerate(radii):
        shell = number // 2
        assert (block >= 0.5 * shell - 1e-6).all()
        assert (block <= 0.5 * (shell + 1) + 1e-6).all()
        # Sorted, so that the first valid one is the innermost.
        assert (block.diff() >= 0).all()
    for inner, outer in pairwise(radii):
        assert inner.max() <= outer.min() + 1e-6
    # Radii are spread evenly, not the points.
    first = torch.cat(radii[:2])
    assert abs(first.mean().item() - 0.25) < 0.06


def test_directions_are_uniform_on_the_sphere_of_the_free_coordinates():
    start = torch.zeros(1, 4)
    searcher = Shells(width=1.0, outermost=5.0, samples=320, shells=1, hybrid=False)
    samples = torch.cat(_samples_of(searcher, start, 10, free=torch.tensor([3, 0])), 1)[0]
    assert (samples[:, 1:3] == 0).all()
    directions = samples[:, [0, 3]] / samples.norm(dim=1, keepdim=True)
    assert (directions.mean(0).abs() < 0.15).all()
    torch.testing.assert_close(directions.T @ directions / 320, torch.eye(2) / 2, atol=0.08, rtol=0)


def test_every_block_and_shell_draws_other_numbers():
    blocks = _samples_of(OUTWARD, torch.zeros(1, 2), 8)
    directions = torch.stack([block[0] / block[0].norm(dim=1, keepdim=True) for block in blocks])
    for one in range(8):
        for other in range(one):
            assert not torch.allclose(directions[one], directions[other])
    shares = torch.stack([torch.cat([blocks[2 * k][0], blocks[2 * k + 1][0]]).norm(dim=1) / 0.5 - k for k in range(4)])
    for one in range(4):
        for other in range(one):
            assert not torch.allclose(shares[one], shares[other], atol=1e-4)


def test_every_example_draws_the_same_numbers_and_another_seed_draws_others():
    both = _samples_of(OUTWARD, torch.zeros(2, 2), 3)
    for block in both:
        torch.testing.assert_close(block[0], block[1])
    others = _samples_of(replace(OUTWARD, seed=7), torch.zeros(1, 2), 3)
    assert not any(torch.allclose(one[0], other[0]) for one, other in zip(both, others))


@pytest.mark.parametrize(
    ("samples", "sizes"), [(5, [5]), (32, [32]), (33, [17, 17]), (70, [24, 24, 24]), (64, [32, 32])]
)
def test_samples_are_cut_into_blocks_of_32_at_most(samples: int, sizes: list[int]):
    searcher = replace(OUTWARD, samples=samples)
    assert searcher.blocks == len(sizes)
    blocks = _samples_of(searcher, torch.zeros(1, 2), len(sizes) + 1)
    assert [block.shape[1] for block in blocks][: len(sizes)] == sizes
    # What has no place in a shell of so many samples counts for nothing.
    radii = torch.cat(blocks[: len(sizes)], 1).norm(dim=2)[0]
    assert (radii[:samples].diff() >= 0).all()
    torch.testing.assert_close(radii[samples:], radii[samples - 1].expand(len(radii) - samples))


@pytest.mark.parametrize(("shells", "steps"), [(3, 6), (5, 10)])
def test_no_more_shells_than_allowed(shells: int, steps: int):
    result = run(at(-30.0), searcher=replace(OUTWARD, shells=shells), max_steps=1000)
    assert result.statuses() == [Status.STEP_LIMIT]
    assert result.steps.tolist() == [steps]


def test_the_outermost_radius_ends_the_search():
    result = run(at(-30.0), searcher=OUTWARD, max_steps=1000)
    assert result.statuses() == [Status.STEP_LIMIT]
    # Eight shells of width ½, of two blocks each.
    assert result.steps.tolist() == [16]


def test_the_best_of_what_found_nothing_has_the_highest_score():
    result = run(at(-9.0), searcher=OUTWARD, max_steps=1000)
    distance = (result.end_latents - result.start_latents).norm()
    assert 3.4 < distance <= 4.0
    assert result.end_latents[0, 0] > -5.6


def _schedule(searcher: Shells, radii: list[float | None]) -> list[tuple[float, float]]:
    """The shells that are tried where shell after shell the nearest valid radius is this one, none if None."""
    asked = problem(torch.zeros(1, 2))
    seen: list[tuple[float, float]] = []

    class Told(Shells):
        def _sample(self, problem: Problem, rows: Tensor, state: State) -> tuple[Tensor, Tensor]:
            seen.append((state["low"].item(), state["high"].item()))
            return state["start"], torch.tensor([radii[len(seen) - 1] or 0.0])

    told = Told(**vars(searcher))
    at = asked.evaluate(torch.zeros(1, 2), torch.tensor([0]))
    state, ended = told.start(asked, at), torch.tensor([RUNNING])
    while ended.item() == RUNNING and len(seen) < len(radii):
        reached = torch.tensor([bool(seen) and radii[len(seen) - 1] is not None])
        _, state, ended = told.step(asked, replace(at, reached=reached), state)
    return seen


ONE_BLOCK = replace(HYBRID, samples=10, patience=3)  # of width 0.1, from 4 inwards


def test_the_hybrid_search_halves_what_it_found_then_shrinks_by_its_width():
    # Found at 3 in (0, 4): on to (1.5, 3). Found at 2: (1, 2). Nothing there: (1.5, 2), and so on to (1.9375, 2), which
    # is less than the width: from 2 inwards by 0.1 a shell.
    shells = _schedule(ONE_BLOCK, [3.0, 2.0, None, None, None, None, None, 1.85, None, None, None])
    expected = [(0.0, 4.0), (1.5, 3.0), (1.0, 2.0), (1.5, 2.0), (1.75, 2.0), (1.875, 2.0), (1.9375, 2.0)]
    expected += [(1.9, 2.0), (1.75, 1.85), (1.65, 1.75), (1.55, 1.65)]
    assert shells == [pytest.approx(shell, abs=1e-5) for shell in expected]


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_as_many_empty_shells_in_a_row_as_its_patience_end_the_hybrid_search(patience: int):
    halving = [3.0, 2.0, None, None, None, None, None]
    shells = _schedule(replace(ONE_BLOCK, patience=patience), [*halving, *[None] * 10])
    assert len(shells) == len(halving) + patience
    # One that holds something begins the count anew.
    again = [*[None] * (patience - 1), 1.5]
    shells = _schedule(replace(ONE_BLOCK, patience=patience), [*halving, *again, *[None] * 10])
    assert len(shells) == len(halving) + len(again) + patience


def test_a_hybrid_search_that_has_looked_everywhere_in_vain_ends():
    shells = _schedule(ONE_BLOCK, [None] * 20)
    # (0, 4), (2, 4), (3, 4), ... (4 - 4/64, 4).
    assert len(shells) == 7
    assert shells[-1] == pytest.approx((4 - 4 / 64, 4.0))


def test_a_hybrid_search_at_the_start_itself_ends():
    shells = _schedule(ONE_BLOCK, [0.05, None, 0.01, None, None, None, None])
    assert all(low >= 0 for low, _ in shells)
    assert shells[-1][1] > 0


def test_a_candidate_that_the_samples_called_valid_is_judged_by_the_loop():
    # The judgement of the candidate alone counts: here the model says another thing of batches than of single images.
    def moody(points: Tensor, rows: Tensor) -> Tensor:
        return two_logits(points if len(points) > 2 else points * 0 - 1, rows)

    result = run(at(-1.0), predict=moody, searcher=OUTWARD, max_steps=1000)
    assert result.statuses() == [Status.STEP_LIMIT]
    assert not result.reached.any()


def test_radii_scale_with_the_typical_length_of_the_coordinates():
    class Long(Plane):
        def typical_length(self, z: Tensor) -> Tensor:
            return 10 * super().typical_length(z)

    short = problem(at(0.0))
    long = replace(short, coordinates=Long())
    first = short.evaluate(at(0.0), torch.tensor([0]))
    for name in ("width", "outermost", "high"):
        torch.testing.assert_close(OUTWARD.start(long, first)[name], 10 * OUTWARD.start(short, first)[name])


def test_no_gradient_is_asked_for():
    def predict(points: Tensor, rows: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return two_logits(points, rows)

    assert run(at(-1.0), predict=predict, searcher=OUTWARD).reached.all()
    with pytest.raises(AssertionError):
        run(at(-1.0), predict=predict, searcher=Ascent(UnitGradient(0.5)))


def test_the_innermost_valid_sample_is_preferred_to_those_of_higher_score():
    # The farther out, the surer the model; what lies beyond 2.5 is not allowed, however high its score.
    def allowed(images: Tensor, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(images)), images[:, 0] < 2.5

    wide = replace(OUTWARD, width=6 / 2**0.5, outermost=7 / 2**0.5)
    blocks = _samples_of(wide, at(0.0), 2)
    samples = torch.cat([block[0] for block in blocks])
    valid = samples[(samples[:, 0] > THRESHOLD) & (samples[:, 0] < 2.5)]
    assert (samples[:, 0] > 2.5).any()
    result = run(at(0.0), searcher=wide, terms=(allowed,))
    innermost = valid[(valid - at(0.0)).norm(dim=1).argmin()]
    torch.testing.assert_close(result.end_latents[0], innermost)


def test_radii_and_directions_of_every_shell_and_block_have_seeds_of_their_own(monkeypatch: pytest.MonkeyPatch):
    used: list[int] = []

    def noise(seeds: Tensor, draw: Callable[[torch.Generator], Tensor], like: Tensor) -> Tensor:
        used.extend(seeds.tolist())
        return shells.noise_of_seeds(seeds, draw, like)

    monkeypatch.setattr(shells, "noise_of_seeds", shells.noise, raising=False)
    monkeypatch.setattr(shells, "noise", noise)
    run(at(-30.0), searcher=replace(OUTWARD, samples=70, shells=4), max_steps=1000)
    # Four shells of three blocks: the radii of a shell are drawn again for each block, the directions are not.
    assert len(used) == 2 * 4 * 3
    assert len(set(used)) == 4 * (1 + 3)


def test_a_sample_that_is_not_finite_is_no_candidate_however_sure_the_model():
    # Clamped, infinity is the image of highest score; in both blocks of the one shell some samples are infinite.
    def decode(z: Tensor) -> Tensor:
        return torch.where(z[:, :1] > -8.5, torch.inf, z)

    wide = replace(OUTWARD, width=4 / 2**0.5, outermost=5 / 2**0.5, shells=1)
    result = run(at(-9.0), decode, searcher=wide, data_range=(-20.0, -6.0))
    assert result.statuses() == [Status.STEP_LIMIT]
    assert -8.8 < result.end_latents[0, 0] <= -8.5


def test_what_fills_the_last_block_up_is_not_found():
    # 33 samples are tried in two blocks of 17: the last of 34 is none.
    searcher = replace(OUTWARD, samples=33, shells=1)
    last = _samples_of(searcher, at(0.0), 3)[1][0][-2:]

    assert not torch.equal(last[0], last[1])
    for sample, expected in zip(last, (Status.FOUND, Status.STEP_LIMIT)):
        model = AllowedOnly(sample)
        assert run(at(0.0), predict=model.predict, searcher=searcher).statuses() == [expected]


class AllowedOnly:
    r"""A model that calls one image class 1, and no other."""

    def __init__(self, image: Tensor) -> None:
        self.image = image

    def predict(self, points: Tensor, rows: Tensor) -> Tensor:
        is_it = ((points - self.image).abs() < 1e-5).all(1)
        return torch.stack((torch.zeros(len(points)), torch.where(is_it, 9.0, -9.0)), 1)
