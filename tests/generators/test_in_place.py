r"""Networks, flows and transforms that write into what they are given change nothing of the caller's."""

from __future__ import annotations

from contextlib import nullcontext

import normflows as nf
import pytest
import torch
from toys import RowClassifier

from captum_dcf import DiffeomorphicCounterfactual, Generator, NaturalCounterfactual
from captum_dcf.generators import AutoencoderGenerator, NormalizingFlowGenerator, Pixels


def shifted_flow(layers: bool = True) -> nf.MultiscaleFlow:
    r"""With normflows' own Shift, which works in place. At the end stands a view, as in any Glow."""
    torch.manual_seed(3)
    base = nf.distributions.DiagGaussian((4, 2, 2), trainable=False)
    flows = [nf.flows.Invertible1x1Conv(4), nf.flows.AffineConstFlow((4, 2, 2)), nf.flows.Squeeze()] if layers else []
    if not layers:
        base = nf.distributions.DiagGaussian((1, 4, 4), trainable=False)
    return nf.MultiscaleFlow([base], [flows], [], transform=nf.transforms.Shift(-0.5), class_cond=False).eval()


def shift_of_rows() -> nf.NormalizingFlow:
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(16), [nf.transforms.Shift(-0.5)]).eval()


class InPlaceEncoder(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sub_(0.5).mul_(2).flatten(1)


class InPlaceDecoder(torch.nn.Module):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z.div_(2).add_(0.5).view(-1, 1, 4, 4)


def autoencoder(**kwargs: object) -> AutoencoderGenerator:
    return AutoencoderGenerator(InPlaceEncoder(), InPlaceDecoder(), **kwargs)


GENERATORS = {
    "flow": lambda: NormalizingFlowGenerator(shifted_flow(), None),
    "flow, memory constant": lambda: NormalizingFlowGenerator(shifted_flow(), None, memory="constant"),
    "transform alone": lambda: NormalizingFlowGenerator(shifted_flow(layers=False), None),
    "transform alone, memory constant": lambda: NormalizingFlowGenerator(shifted_flow(False), None, memory="constant"),
    "rows of pixels": lambda: NormalizingFlowGenerator(shift_of_rows(), None, image_shape=(1, 4, 4)),
    "rows of pixels, memory constant": lambda: NormalizingFlowGenerator(
        shift_of_rows(), None, memory="constant", image_shape=(1, 4, 4)
    ),
    "autoencoder": lambda: autoencoder(data_range=None),
    "autoencoder with shaped latents": lambda: autoencoder(data_range=None, latent_shape=(4, 4)),
}
EVERY_GENERATOR = pytest.mark.parametrize("kind", GENERATORS)


@pytest.mark.parametrize("constant", [False, True])
@EVERY_GENERATOR
def test_images_and_latents_are_left_as_they_are(kind: str, constant: bool):
    generator: Generator = GENERATORS[kind]()
    x = torch.rand(3, 1, 4, 4)
    before = x.clone()
    with torch.no_grad(), generator.constant() if constant else nullcontext():
        z = generator.encode(x)
        latents = z.clone()
        torch.testing.assert_close(generator.decode(z), before)
        torch.testing.assert_close(generator.encode(x), latents)
        if isinstance(generator, NormalizingFlowGenerator):
            assert torch.equal(generator.log_prob(x), generator.log_prob(x))
    assert torch.equal(x, before)
    assert torch.equal(z, latents)


@pytest.mark.parametrize("constant", [False, True])
@EVERY_GENERATOR
def test_the_gradient_is_right(kind: str, constant: bool):
    generator = GENERATORS[kind]().double()
    z = torch.randn(2, 16, dtype=torch.float64, requires_grad=True)
    with generator.constant() if constant else nullcontext():
        assert torch.autograd.gradcheck(generator.decode, z)
        image = generator.decode(z)
        before = image.detach().clone()
        image.square().sum().backward()
        assert torch.equal(image, before)


@EVERY_GENERATOR
def test_a_search_does_not_change_its_inputs(kind: str):
    x = 0.3 + 0.3 * torch.rand(3, 1, 4, 4)
    for method in (DiffeomorphicCounterfactual, NaturalCounterfactual):
        generator = GENERATORS[kind]().eval()
        result = method(RowClassifier().eval(), generator).counterfactual(x, target=1, confidence=0.6, max_steps=4)
        assert torch.equal(result.inputs, x)
        torch.testing.assert_close(result.reconstructions, x, rtol=0, atol=1e-5)
        with torch.no_grad():
            decoded = generator.decode(result.end_latents)
        torch.testing.assert_close(decoded, result.counterfactuals, rtol=0, atol=1e-5)


def test_pixels_are_copied():
    generator, x = Pixels((1, 4, 4)), torch.rand(2, 1, 4, 4)
    before = x.clone()
    z = generator.encode(x)
    image = generator.decode(z)
    z.add_(1)
    assert torch.equal(x, before)
    assert torch.equal(image, before)
