r"""Normalizing flows as generators: coordinates that lose nothing, and a density."""

from __future__ import annotations

import math
from collections.abc import Callable

import normflows as nf
import pytest
import torch
from torch import Tensor, nn

from captum_dcf import DiffeomorphicCounterfactual
from captum_dcf.generators import NormalizingFlowGenerator
from captum_dcf.models.glow import InvertibleConv, PixelLogit, glow

SHAPE = (1, 8, 8)


def stirred(flow: nn.Module, shape: tuple[int, ...], amount: float = 0.1) -> nn.Module:
    r"""The flow in evaluation mode, its ActNorms set by data and its weights moved off their first values."""
    source = torch.Generator().manual_seed(2)
    with torch.no_grad():
        data = torch.rand(32, *shape, generator=source)
        flow.inverse_and_log_det(data)
        for parameter in flow.parameters():
            parameter += amount * torch.randn(parameter.shape, generator=source)
    return flow.eval()


def our_glow() -> nn.Module:
    return stirred(glow(SHAPE, [2, 2], [6, 6]), SHAPE, 0.05)


def our_glow_without_factoring_out() -> nn.Module:
    return stirred(glow(SHAPE, [2, 1], [6, 6], factor_out=False), SHAPE, 0.05)


def normflows_glow(transform: nn.Module | None = None) -> nn.Module:
    # As normflows' own examples assemble it.
    channels, levels, blocks, hidden = 3, 2, 2, 8
    bases, merges, flows = [], [], []
    for level in range(levels):
        width = channels * 2 ** (levels + 1 - level)
        steps = [nf.flows.GlowBlock(width, hidden, split_mode="channel", scale=True) for _ in range(blocks)]
        flows.append([*steps, nf.flows.Squeeze()])
        if level > 0:
            merges.append(nf.flows.Merge())
            latent = (channels * 2 ** (levels - level), 8 // 2 ** (levels - level), 8 // 2 ** (levels - level))
        else:
            latent = (channels * 2 ** (levels + 1), 8 // 2**levels, 8 // 2**levels)
        bases.append(nf.distributions.DiagGaussian(latent))
    flow = nf.MultiscaleFlow(bases, flows, merges, transform, class_cond=False)
    return stirred(flow, (3, 8, 8), 0.02)


def normflows_glow_with_logit() -> nn.Module:
    return normflows_glow(nf.transforms.Logit(alpha=0.05))


def real_nvp() -> nn.Module:
    torch.manual_seed(1)
    mask = torch.tensor([1.0, 0.0])
    couplings = [
        nf.flows.MaskedAffineFlow(m, nf.nets.MLP([2, 8, 2]), nf.nets.MLP([2, 8, 2], output_fn="tanh"))
        for m in (mask, 1 - mask, mask)
    ]
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(2), couplings)
    return stirred(flow, (2,), 0.3)


FLOWS = [
    (our_glow, SHAPE),
    (our_glow_without_factoring_out, SHAPE),
    (normflows_glow, (3, 8, 8)),
    (normflows_glow_with_logit, (3, 8, 8)),
    (real_nvp, (2,)),
]
EVERY_FLOW = pytest.mark.parametrize(("build", "shape"), FLOWS, ids=[build.__name__ for build, _ in FLOWS])


@EVERY_FLOW
def test_an_encoded_image_decodes_to_itself(build: Callable[[], nn.Module], shape: tuple[int, ...]):
    generator, x = NormalizingFlowGenerator(build()), torch.rand(5, *shape)
    assert generator.exact
    with torch.no_grad():
        z = generator.encode(x)
        assert z.shape == (5, math.prod(shape))
        torch.testing.assert_close(generator.decode(z), x, rtol=0, atol=1e-5)
        with generator.constant():
            torch.testing.assert_close(generator.decode(z), x, rtol=0, atol=1e-5)
            torch.testing.assert_close(generator.encode(x), z, rtol=1e-5, atol=1e-5)


@EVERY_FLOW
def test_a_decoded_latent_encodes_to_itself(build: Callable[[], nn.Module], shape: tuple[int, ...]):
    generator, z = NormalizingFlowGenerator(build()), 0.5 * torch.randn(5, math.prod(shape))
    with torch.no_grad():
        torch.testing.assert_close(generator.encode(generator.decode(z)), z, rtol=1e-3, atol=1e-3)


@EVERY_FLOW
def test_decode_is_normflows_own_also_with_constant_parameters(build: Callable[[], nn.Module], shape: tuple[int, ...]):
    flow = build()
    generator, z = NormalizingFlowGenerator(flow), torch.randn(4, math.prod(shape), requires_grad=True)
    if isinstance(flow, nf.MultiscaleFlow):
        parts = z.split([math.prod(base.shape) for base in flow.q0], dim=1)
        own = flow.forward_and_log_det([part.view(4, *base.shape) for part, base in zip(parts, flow.q0)])[0]
    else:
        own = flow.forward(z)
    weights = torch.randn_like(own)
    (own_gradient,) = torch.autograd.grad((own * weights).sum(), z)
    torch.testing.assert_close(generator.decode(z), own)
    with generator.constant():
        decoded = generator.decode(z)
        (gradient,) = torch.autograd.grad((decoded * weights).sum(), z)
    torch.testing.assert_close(decoded, own, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, own_gradient, rtol=1e-3, atol=1e-5)


@EVERY_FLOW
def test_log_prob_is_that_of_the_flow(build: Callable[[], nn.Module], shape: tuple[int, ...]):
    flow, x = build(), torch.rand(4, *shape)
    expected = flow.log_prob(x, None) if isinstance(flow, nf.MultiscaleFlow) else flow.log_prob(x)
    received = NormalizingFlowGenerator(flow).log_prob(x)
    assert received.shape == (4,)
    torch.testing.assert_close(received, expected)


@EVERY_FLOW
def test_log_prob_follows_the_change_of_variables(build: Callable[[], nn.Module], shape: tuple[int, ...]):
    # log p(x) = log N(g⁻¹(x)) + log |det ∂g⁻¹/∂x|, the Jacobian taken by autograd, in float64.
    generator = NormalizingFlowGenerator(build().double())
    x = torch.rand(1, *shape, dtype=torch.float64)
    z = generator.encode(x)
    scales = [base.log_scale.exp().flatten() for base in generator._bases()]
    centers = [base.loc.flatten() for base in generator._bases()]
    normal = torch.distributions.Normal(torch.cat(centers), torch.cat(scales))
    jacobian = torch.autograd.functional.jacobian(lambda x: generator.encode(x)[0], x).flatten(1)
    expected = normal.log_prob(z[0]).sum() + torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(generator.log_prob(x)[0], expected)


def test_a_density_integrates_to_one():
    generator = NormalizingFlowGenerator(real_nvp(), data_range=None)
    ticks = torch.linspace(-12, 12, 481)
    grid = torch.cartesian_prod(ticks, ticks)
    with torch.no_grad():
        mass = generator.log_prob(grid).exp().sum() * (ticks[1] - ticks[0]).square()
    assert mass.item() == pytest.approx(1, abs=0.02)


# The typical length


def test_the_typical_length_of_a_standard_normal_is_the_root_of_its_dimensions():
    generator = NormalizingFlowGenerator(glow(SHAPE, [1, 1], [4, 4]))
    length = generator.typical_length(torch.zeros(1, 64, dtype=torch.float64))
    assert length.item() == pytest.approx(8)
    assert length.dtype == torch.float64


def test_the_typical_length_knows_the_scales_of_the_base():
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(3), [])
    with torch.no_grad():
        flow.q0.log_scale.copy_(torch.tensor([[1.0, 2.0, 6.0]]).log())
    generator = NormalizingFlowGenerator(flow, None)
    # √(1 + 4 + 36)
    assert generator.typical_length(torch.zeros(1, 3)).item() == pytest.approx(41**0.5)
    generator.free = slice(0, 2)
    assert generator.typical_length(torch.zeros(1, 3)).item() == pytest.approx(5**0.5)
    samples = flow.q0.sample(4000)[:, :2]
    assert samples.norm(dim=1).square().mean().sqrt().item() == pytest.approx(5**0.5, rel=0.1)


def test_the_typical_length_takes_an_index_of_free_coordinates():
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(3), [])
    with torch.no_grad():
        flow.q0.log_scale.copy_(torch.tensor([[1.0, 2.0, 6.0]]).log())
    generator = NormalizingFlowGenerator(flow, None)
    generator.free = torch.tensor([0, 2])
    # √(1 + 36)
    assert generator.typical_length(torch.zeros(1, 3)).item() == pytest.approx(37**0.5)
    generator.free = torch.tensor([], dtype=torch.int64)
    with pytest.raises(ValueError, match="no free coordinate"):
        generator.typical_length(torch.zeros(1, 3))


@pytest.mark.parametrize(("log_scale", "length"), [(-200.0, "0.0"), (200.0, "inf"), (math.nan, "nan")])
def test_scales_of_the_base_that_overflow_or_vanish_are_refused(log_scale: float, length: str):
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(3), [])
    with torch.no_grad():
        flow.q0.log_scale.fill_(log_scale)
    with pytest.raises(ValueError, match=rf"log_scale .* length {length}"):
        NormalizingFlowGenerator(flow, None).typical_length(torch.zeros(1, 3))


def test_other_bases_fall_back_to_the_root_of_the_dimensions():
    flow = nf.NormalizingFlow(nf.distributions.Uniform(4), [])
    generator = NormalizingFlowGenerator(flow, None, latent_shapes=[(4,)])
    assert generator.typical_length(torch.zeros(1, 4)).item() == pytest.approx(2)


# Work


def test_weights_of_convolutions_are_assembled_once_a_search(monkeypatch: pytest.MonkeyPatch):
    generator = NormalizingFlowGenerator(our_glow())
    convolutions = [part for part in generator.modules() if isinstance(part, nf.flows.Invertible1x1Conv)]
    calls: list[bool] = []
    original = nf.flows.Invertible1x1Conv._assemble_W

    def counted(self: nn.Module, inverse: bool = False) -> Tensor:
        calls.append(inverse)
        return original(self, inverse)

    monkeypatch.setattr(nf.flows.Invertible1x1Conv, "_assemble_W", counted)
    decodes = []
    classify = nn.Linear(64, 3)

    def model(x: Tensor) -> Tensor:
        decodes.append(len(x))
        return 3 * classify(x.flatten(1))

    result = DiffeomorphicCounterfactual(model, generator).counterfactual(torch.rand(4, *SHAPE), 1, max_steps=12)
    assert result.steps.max() > 5
    assert len(decodes) > 5
    # Once for each, when the search begins: the encode uses the same matrices.
    assert len(calls) == len(convolutions)


@EVERY_FLOW
def test_a_search_through_the_flow_finds_what_it_looks_for(build: Callable[[], nn.Module], shape: tuple[int, ...]):
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 2))
    x = 0.2 + 0.6 * torch.rand(6, *shape)
    method = DiffeomorphicCounterfactual(classifier, NormalizingFlowGenerator(build()))
    with torch.no_grad():
        other = 1 - classifier(x).argmax(1)
    result = method.counterfactual(x, other, confidence=0.6, internal_batch_size=4)
    assert result.reached.any()
    torch.testing.assert_close(result.reconstructions, x, rtol=0, atol=1e-5)
    found = result.reached
    assert (classifier(result.counterfactuals).argmax(1) == other)[found].all()
    for row in range(6):
        alone = method.counterfactual(x[row : row + 1], int(other[row]), confidence=0.6)
        assert (alone.counterfactuals - result.counterfactuals[row]).abs().max() <= 1e-4


# What it is made of


def test_what_is_no_flow_is_refused():
    with pytest.raises(TypeError, match=r"NormalizingFlow or MultiscaleFlow.*Linear"):
        NormalizingFlowGenerator(nn.Linear(2, 2))


def test_a_conditional_flow_is_refused_by_name():
    base = nf.distributions.DiagGaussian(2)
    with pytest.raises(TypeError, match="unconditional, received ConditionalNormalizingFlow"):
        NormalizingFlowGenerator(nf.ConditionalNormalizingFlow(base, []))
    with pytest.raises(TypeError, match="not ClassCondFlow"):
        NormalizingFlowGenerator(nf.ClassCondFlow(base, []))


def test_a_bare_flow_is_referred_to_its_adapter():
    with pytest.raises(TypeError, match=r"received NormalizingFlow: .*NormalizingFlowGenerator"):
        DiffeomorphicCounterfactual(nn.Flatten(), real_nvp())


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (lambda: nf.flows.Planar((4,)), "Planar"),
        (lambda: nf.flows.Radial((4,)), "Radial"),
        (lambda: nf.flows.BatchNorm(), "BatchNorm"),
        (lambda: nf.flows.Reverse(nf.flows.Radial((4,))), "Radial"),
    ],
)
def test_layers_without_an_inverse_are_named(layer: Callable[[], nf.flows.Flow], kind: str):
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(4), [nf.flows.AffineConstFlow((4,)), layer()])
    with pytest.raises(ValueError, match=rf"flows\.1\S* \({kind}\) has none"):
        NormalizingFlowGenerator(flow)


def test_a_planar_flow_with_an_inverse_is_accepted():
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(4), [nf.flows.Planar((4,), act="leaky_relu")])
    x = torch.randn(3, 4)
    with torch.no_grad():
        torch.testing.assert_close(NormalizingFlowGenerator(flow, None)(x), x)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((2, 3, 32, 32), r"64 values each, received \(2, 3, 32, 32\), 3072"),
        ((2, 1, 8, 9), r"64 values each, received \(2, 1, 8, 9\), 72"),
        ((8, 8), r"64 values each, received \(8, 8\), 8"),
        ((1, 8, 8), r"4 dimensions .* received \(1, 8, 8\)"),
        ((2, 64), r"4 dimensions .* received \(2, 64\)"),
    ],
)
def test_images_of_another_shape_are_refused(shape: tuple[int, ...], says: str):
    generator = NormalizingFlowGenerator(our_glow())
    for use in (generator.encode, generator.log_prob, generator):
        with pytest.raises(ValueError, match=says):
            use(torch.rand(shape))
    with generator.constant(), pytest.raises(ValueError, match=says):
        generator.encode(torch.rand(shape))


@pytest.mark.parametrize("memory", ["small", "", [], None])
def test_unknown_memory_is_refused(memory: object):
    with pytest.raises(ValueError, match=r"'full', 'constant'.*received") as caught:
        NormalizingFlowGenerator(real_nvp(), memory=memory)
    assert repr(memory) in str(caught.value)


def test_a_base_without_a_shape_needs_latent_shapes():
    class Nameless(nn.Module):
        def forward(self, count: int) -> None: ...

    flow = nf.NormalizingFlow(Nameless(), [])
    with pytest.raises(ValueError, match="Nameless has no shape: pass latent_shapes"):
        NormalizingFlowGenerator(flow)
    assert NormalizingFlowGenerator(flow, latent_shapes=[[2, 3]]).decode(torch.zeros(5, 6)).shape == (5, 2, 3)


@pytest.mark.parametrize("shape", [(2, 63), (2, 65), (2, 1, 8, 8), (64,)])
def test_latents_of_another_size_are_refused(shape: tuple[int, ...]):
    generator = NormalizingFlowGenerator(our_glow())
    with pytest.raises(ValueError, match=r"\(N, 64\), received") as caught:
        generator.decode(torch.zeros(shape))
    assert str(tuple(shape)) in str(caught.value)


def test_a_class_conditional_flow_has_no_density_of_an_image_alone():
    base = nf.distributions.ClassCondDiagGaussian((4,), 3)
    flow = nf.MultiscaleFlow([base], [[]], [], class_cond=True)
    with pytest.raises(TypeError, match="class-conditional"):
        NormalizingFlowGenerator(flow, latent_shapes=[(4,)]).log_prob(torch.zeros(2, 4))


def test_a_class_conditional_base_of_a_flow_with_one_level():
    flow = nf.NormalizingFlow(nf.distributions.ClassCondDiagGaussian((4,), 3), [])
    with pytest.raises(TypeError, match="class-conditional"):
        NormalizingFlowGenerator(flow).log_prob(torch.zeros(2, 4))


def test_a_flow_is_class_conditional_by_its_bases():
    # normflows says class_cond=True of every multi-scale flow that does not say otherwise.
    base = nf.distributions.DiagGaussian((1, 2, 2), trainable=False)
    flow = NormalizingFlowGenerator(nf.MultiscaleFlow([base], [[]], []), data_range=None)
    x = torch.randn(3, 1, 2, 2)
    expected = torch.distributions.Normal(0, 1).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(flow.log_prob(x), expected)


# Rows of pixels


def flat_flow() -> nf.NormalizingFlow:
    torch.manual_seed(2)
    mask = torch.tensor([1.0, 0.0] * 8)
    nets = [nf.nets.MLP([16, 8, 16], init_zeros=False) for _ in range(4)]
    layers = [nf.flows.MaskedAffineFlow(mask if i else 1 - mask, nets[2 * i], nets[2 * i + 1]) for i in range(2)]
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(16, trainable=False), layers).eval()


def test_a_flow_over_rows_of_pixels_takes_images():
    flow, x = flat_flow(), torch.rand(3, 1, 4, 4)
    generator = NormalizingFlowGenerator(flow, data_range=None, image_shape=(1, 4, 4))
    torch.testing.assert_close(generator(x), x)
    torch.testing.assert_close(generator.log_prob(x), flow.log_prob(x.flatten(1)))
    with generator.constant():
        torch.testing.assert_close(generator(x), x)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    method = DiffeomorphicCounterfactual(classifier, generator)
    assert method.counterfactual(x, classifier(x).argmin(1), confidence=0.6).reached.all()


def test_a_flow_over_rows_of_pixels_wants_images_of_one_shape():
    generator = NormalizingFlowGenerator(flat_flow(), data_range=None, image_shape=(1, 4, 4))
    for shape in ((3, 1, 2, 8), (1, 4, 4), (3, 16)):
        with pytest.raises(ValueError, match=r"\(1, 4, 4\), received") as caught:
            generator.encode(torch.rand(shape))
        assert str(shape) in str(caught.value)


def test_a_flow_over_rows_of_pixels_says_what_it_needs():
    with pytest.raises(ValueError, match=r"rows of 16 pixels: .* image_shape=\(1, 4, 4\)"):
        NormalizingFlowGenerator(flat_flow()).encode(torch.rand(3, 1, 4, 4))


# Glow


@pytest.mark.parametrize("factor_out", [True, False])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_glow_has_as_many_latents_as_pixels(factor_out: bool, levels: int):
    flow = glow((3, 8, 8), [1] * levels, [4] * levels, factor_out)
    shapes = [math.prod(base.shape) for base in flow.q0]
    assert sum(shapes) == 3 * 64
    assert len(shapes) == (levels if factor_out else 1)
    flow = stirred(flow, (3, 8, 8), 0.02)
    x = torch.rand(3, 3, 8, 8)
    torch.testing.assert_close(NormalizingFlowGenerator(flow)(x), x, rtol=0, atol=1e-5)


def test_glow_says_what_does_not_fit():
    with pytest.raises(ValueError, match=r"one entry per level.*\[1, 1\].*\[4\]"):
        glow((1, 8, 8), [1, 1], [4])
    with pytest.raises(ValueError, match=r"2 levels .* divisible by 4, received 6×8"):
        glow((1, 6, 8), [1, 1], [4, 4])


def test_an_untrained_glow_knows_the_seed_of_its_weights():
    first, second = (_seeded_glow(seed) for seed in (3, 3))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def _seeded_glow(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return glow((1, 4, 4), [1], [4])


def test_our_lu_convolution_is_that_of_normflows():
    torch.manual_seed(0)
    ours = InvertibleConv(6)
    z = torch.randn(2, 6, 3, 3)
    image, log_det = ours(z)
    # At the beginning it is a rotation: lengths stay and volumes too.
    torch.testing.assert_close(image.norm(dim=1), z.norm(dim=1))
    torch.testing.assert_close(log_det, torch.zeros(()), rtol=0, atol=1e-4)
    back, log_det_back = ours.inverse(image)
    torch.testing.assert_close(back, z)
    torch.testing.assert_close(log_det_back, -log_det)
    with torch.no_grad():
        ours.log_S += 0.3
    assert ours(z)[1].item() == pytest.approx(-0.3 * 6 * 9, abs=1e-3)


@pytest.mark.parametrize("bins", [32, 256])
def test_pixel_logit_by_autograd_and_by_hand(bins: int):
    layer = PixelLogit(bins)
    x = torch.rand(1, 1, 2, 3, dtype=torch.float64)
    z, log_det = layer.inverse(x)
    # The middle of the bin, moved to (α, 1 - α), as a logit.
    unit = 0.05 + 0.9 * (x * (bins - 1) + 0.5) / bins
    torch.testing.assert_close(z, torch.logit(unit))
    jacobian = torch.autograd.functional.jacobian(lambda x: layer.inverse(x)[0].flatten(), x).view(6, 6)
    torch.testing.assert_close(log_det[0], torch.linalg.slogdet(jacobian).logabsdet)
    back, log_det_back = layer(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_det_back, -log_det)


def test_couplings_cannot_overflow_at_once():
    generator = NormalizingFlowGenerator(our_glow())
    with torch.no_grad():
        decoded = generator.decode(1e3 * torch.randn(8, 64))
    assert decoded.isfinite().all()
