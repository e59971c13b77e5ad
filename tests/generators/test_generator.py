r"""The defaults of Generator, and the identity."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import Rotated, RowClassifier, images

from captum_dcf import (
    AtLeast,
    DiffeomorphicCounterfactual,
    Generator,
    IdentityGenerator,
    UnitGradient,
)
from captum_dcf.generators import AutoencoderGenerator


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


@pytest.mark.parametrize(("free", "count"), [(slice(None), 16), (slice(0, 9), 9), (slice(12, None), 4)])
def test_the_typical_length_counts_the_free_coordinates(generator: Generator, free: slice, count: int):
    generator.free = free
    length = generator.typical_length(torch.zeros(2, 16, dtype=torch.float64))
    assert length.shape == ()
    assert length.dtype == torch.float64
    assert length.item() == pytest.approx(count**0.5)


def test_a_generator_says_which_coordinates_are_free():
    generator = Rotated()
    generator.free = slice(0, 10)
    result = DiffeomorphicCounterfactual(RowClassifier(), generator).counterfactual(images(3), target=1, max_steps=5)
    moved = (result.end_latents - result.start_latents).abs() > 0
    assert moved[:, :10].all()
    assert not moved[:, 10:].any()
    torch.testing.assert_close(
        DiffeomorphicCounterfactual(RowClassifier(), generator)
        .counterfactual(images(3), target=1, max_steps=1)
        .end_latents.sub(result.start_latents)
        .norm(dim=1),
        torch.full((3,), 10**0.5 / 28),
    )


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


# The identity


def test_an_autoencoder_may_have_latents_of_any_shape():
    encoder, decoder = nn.Conv2d(1, 2, 2, stride=2), nn.ConvTranspose2d(2, 1, 2, stride=2)
    x = images(3)
    with pytest.raises(ValueError, match=r"give AutoencoderGenerator latent_shape=\(2, 2, 2\)"):
        AutoencoderGenerator(encoder, decoder).encode(x)
    generator = AutoencoderGenerator(encoder, decoder, latent_shape=(2, 2, 2))
    assert generator.encode(x).shape == (3, 8)
    torch.testing.assert_close(generator(x), decoder(encoder(x)))


def test_the_identity_keeps_every_bit():
    generator = IdentityGenerator((1, 4, 4))
    x = images(3)
    assert generator.exact
    assert generator.encode(x).shape == (3, 16)
    assert torch.equal(generator(x), x)
    assert torch.equal(generator.decode(generator.encode(x).T.contiguous().T), x)


def test_the_identity_searches_in_pixels():
    x = images(3)
    result = DiffeomorphicCounterfactual(
        RowClassifier(), IdentityGenerator((1, 4, 4)), UnitGradient(0.05)
    ).counterfactual(x, target=1)
    assert result.reached.all()
    assert torch.equal(result.reconstructions, x)
    torch.testing.assert_close(result.end_latents.view_as(x).clamp(0, 1), result.counterfactuals)
    # The last row of pixels does not matter to the model, so it does not change.
    torch.testing.assert_close(result.attributions[:, 0, 3], torch.zeros(3, 4))


@pytest.mark.parametrize(
    ("data_range", "share"), [((0.0, 1.0), 0.01), (None, 0.01), ((-1.0, 1.0), 0.02), ((0, 255), 2.55)]
)
def test_the_typical_length_of_pixels_follows_their_range(data_range: tuple[float, float] | None, share: float):
    generator = IdentityGenerator((3, 10, 10), data_range)
    length = generator.typical_length(torch.zeros(1, 300))
    assert length.item() == pytest.approx(300**0.5 * share)


def test_data_without_bounds_are_not_clamped():
    def sum_of(x: Tensor) -> Tensor:
        return 3 * x.sum(1)

    method = DiffeomorphicCounterfactual(sum_of, IdentityGenerator((2,), None), UnitGradient(0.1))
    result = method.counterfactual(torch.zeros(1, 2), goal=AtLeast(12.0))
    assert result.reached.all()
    assert result.counterfactuals.max() > 1
    bounded = DiffeomorphicCounterfactual(sum_of, IdentityGenerator((2,)), UnitGradient(0.1))
    best = bounded.counterfactual(torch.zeros(1, 2), goal=AtLeast(12.0), max_steps=50)
    assert not best.reached.any()
    assert best.counterfactuals.max() == 1
