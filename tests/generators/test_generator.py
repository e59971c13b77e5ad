r"""The defaults of Generator, and pixels as coordinates."""

from __future__ import annotations

import normflows as nf
import pytest
import torch
from torch import Tensor, nn
from toys import Rotated, RowClassifier, images

from captum_dcf import (
    AtLeast,
    CounterfactualAttribution,
    DiffeomorphicCounterfactual,
    Generator,
    LatentShift,
    NaturalCounterfactual,
    Pixels,
    UnitGradient,
)


def test_calling_a_generator_gives_the_reconstruction(generator: Generator):
    torch.testing.assert_close(generator(images(3)), images(3))


def test_a_generator_has_to_write_its_two_methods():
    class Half(Generator):
        def encode(self, x: Tensor) -> Tensor:
            return x.flatten(1)

    with pytest.raises(TypeError, match="decode"):
        Half()


def test_a_generator_without_a_density_says_so(generator: Generator):
    with pytest.raises(TypeError, match="Rotated has no density"):
        generator.log_prob(images(1))


@pytest.mark.parametrize(
    ("free", "count"),
    [(slice(None), 16), (slice(0, 9), 9), (slice(12, None), 4), (torch.tensor([0, 3, 15]), 3)],
)
def test_the_typical_length_counts_the_free_coordinates(generator: Generator, free: slice | Tensor, count: int):
    generator.free = free
    length = generator.typical_length(torch.zeros(2, 16, dtype=torch.float64))
    assert length.shape == ()
    assert length.dtype == torch.float64
    assert length.item() == pytest.approx(count**0.5)


@pytest.mark.parametrize("free", [slice(0, 0), torch.tensor([], dtype=torch.int64)])
def test_no_free_coordinate_is_refused(generator: Generator, free: slice | Tensor):
    generator.free = free
    with pytest.raises(ValueError, match=r"Rotated has no free coordinate.* of 16"):
        generator.typical_length(torch.zeros(2, 16))


@pytest.mark.parametrize("free", [slice(0, 10), torch.tensor([0, 2, 3, 5, 7, 8, 9, 11, 14, 15])])
def test_a_generator_says_which_coordinates_are_free(free: slice | Tensor):
    generator = Rotated()
    generator.free = free
    result = DiffeomorphicCounterfactual(RowClassifier(), generator).counterfactual(images(3), target=1, max_steps=5)
    moved = (result.end_latents - result.start_latents).abs() > 0
    is_free = torch.zeros(16, dtype=torch.bool)
    is_free[free] = True
    assert moved[:, is_free].all()
    assert not moved[:, ~is_free].any()
    # A slope so faint promises a long way, and leaves the step at its full length.
    classifier = RowClassifier()
    faint = DiffeomorphicCounterfactual(lambda x: 0.01 * classifier(x), generator)
    one = faint.counterfactual(images(3), target=1, max_steps=1)
    lengths = (one.end_latents - one.start_latents).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((3,), 10**0.5 / 28))


def test_the_constant_context_is_entered_once_for_a_whole_call():
    class Watched(Rotated):
        entered = left = 0

        def constant(self):
            class Block:
                def __enter__(_) -> None:
                    self.entered += 1

                def __exit__(_, *error: object) -> None:
                    self.left += 1

            return Block()

    generator = Watched()
    method = DiffeomorphicCounterfactual(RowClassifier(), generator)
    method.attribute(images(4), target=1, internal_batch_size=2)
    assert (generator.entered, generator.left) == (1, 1)
    with pytest.raises(ValueError, match="out of range"):
        method.attribute(images(4), target=5)
    assert generator.entered == generator.left


@pytest.mark.parametrize("method", [DiffeomorphicCounterfactual, LatentShift, NaturalCounterfactual])
def test_a_slice_and_an_index_of_the_same_coordinates_give_the_same(method: type[CounterfactualAttribution]):
    latents = []
    for free in (slice(4, 12), torch.arange(4, 12)):
        generator = Rotated()
        generator.free = free
        result = method(RowClassifier(), generator).counterfactual(images(3), target=1, confidence=0.6, max_steps=4)
        latents.append(result.end_latents - result.start_latents)
    torch.testing.assert_close(latents[0], latents[1])
    assert (latents[0][:, 4:12] != 0).any()
    assert not latents[0][:, :4].any()


def test_a_generator_is_ready_once_its_layers_have_seen_data():
    class Wrapped(Rotated):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nf.flows.ActNorm((1, 1, 1)))

    generator = Wrapped()
    with pytest.raises(ValueError, match=r"Wrapped\.layers\.0 \(ActNorm\) has not seen data"):
        generator.check_ready()
    generator.layers[0](images(3))
    generator.check_ready()


class Forgetful(Generator):
    def __init__(self) -> None:
        self.scale = 2.0

    def encode(self, x: Tensor) -> Tensor:
        return x.flatten(1) * self.scale

    def decode(self, z: Tensor) -> Tensor:
        return (z / self.scale).view(-1, 1, 4, 4)


USES = {
    "call": lambda generator: generator(images(1)),
    "eval": lambda generator: generator.eval(),
    "check_ready": lambda generator: generator.check_ready(),
    "search": lambda generator: DiffeomorphicCounterfactual(RowClassifier(), generator).attribute(images(1), target=1),
}


@pytest.mark.parametrize("use", USES)
def test_a_generator_that_forgets_to_initialise_its_base_is_named(use: str):
    with pytest.raises(AttributeError, match=r"Forgetful\.__init__ must call super\(\)\.__init__\(\)"):
        USES[use](Forgetful())


def test_a_missing_attribute_is_named_as_ever(generator: Generator):
    with pytest.raises(AttributeError, match="no attribute 'temperature'"):
        _ = generator.temperature
    assert not hasattr(generator, "temperature")


# Pixels


@pytest.mark.parametrize(("shape", "accepted"), [((1, 4, 4), r"\(N, 1, 4, 4\)"), ((7,), r"\(N, 7\)")])
def test_images_of_another_shape_than_the_pixels(shape: tuple[int, ...], accepted: str):
    with pytest.raises(ValueError, match=rf"{accepted}, received \(2, 5\)"):
        Pixels(shape).encode(torch.zeros(2, 5))


def test_pixels_keep_every_bit():
    generator = Pixels((1, 4, 4))
    x = images(3)
    assert generator.exact
    assert generator.encode(x).shape == (3, 16)
    assert torch.equal(generator(x), x)
    assert torch.equal(generator.decode(generator.encode(x).T.contiguous().T), x)


def test_a_search_in_pixels():
    x = images(3)
    result = DiffeomorphicCounterfactual(RowClassifier(), Pixels((1, 4, 4)), UnitGradient(0.05)).counterfactual(
        x, target=1
    )
    assert result.reached.all()
    assert torch.equal(result.reconstructions, x)
    torch.testing.assert_close(result.end_latents.view_as(x).clamp(0, 1), result.counterfactuals)
    # The last row of pixels does not matter to the model, so it does not change.
    torch.testing.assert_close(result.attributions[:, 0, 3], torch.zeros(3, 4))


@pytest.mark.parametrize(
    ("data_range", "share"), [((0.0, 1.0), 0.01), (None, 0.01), ((-1.0, 1.0), 0.02), ((0, 255), 2.55)]
)
def test_the_typical_length_of_pixels_follows_their_range(data_range: tuple[float, float] | None, share: float):
    generator = Pixels((3, 10, 10), data_range)
    length = generator.typical_length(torch.zeros(1, 300))
    assert length.item() == pytest.approx(300**0.5 * share)


def test_data_without_bounds_are_not_clamped():
    def sum_of(x: Tensor) -> Tensor:
        return 3 * x.sum(1)

    method = DiffeomorphicCounterfactual(sum_of, Pixels((2,), None), UnitGradient(0.1))
    result = method.counterfactual(torch.zeros(1, 2), goal=AtLeast(12.0))
    assert result.reached.all()
    assert result.counterfactuals.max() > 1
    bounded = DiffeomorphicCounterfactual(sum_of, Pixels((2,)), UnitGradient(0.1))
    best = bounded.counterfactual(torch.zeros(1, 2), goal=AtLeast(12.0), max_steps=50)
    assert not best.reached.any()
    assert best.counterfactuals.max() == 1
