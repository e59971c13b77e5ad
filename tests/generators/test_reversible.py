r"""Gradients that store only the output are autograd's, and what is stored does not grow with depth."""

from __future__ import annotations

import normflows as nf
import pytest
import torch
from torch import Tensor, nn

from captum_dcf import DiffeomorphicCounterfactual
from captum_dcf.generators import Checkpointed, NormalizingFlowGenerator
from captum_dcf.models.glow import glow


def random_glow(steps: int, image_shape: tuple[int, int, int] = (3, 8, 8)) -> nf.MultiscaleFlow:
    r"""With couplings that are not the identity, as they are before training."""
    flow = glow(image_shape, (steps, steps), (8, 8)).eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        flow.inverse_and_log_det(torch.rand(16, *image_shape))
    return flow


def gradient(flow: nn.Module, memory: str, z: Tensor, weights: Tensor) -> Tensor:
    generator = NormalizingFlowGenerator(flow, memory=memory)
    z = z.clone().requires_grad_()
    with generator.constant():
        return torch.autograd.grad((generator.decode(z) * weights).sum(), z)[0]


def bytes_saved(function: nn.Module, z: Tensor) -> int:
    r"""Bytes that a forward pass keeps for its gradient, parameters left out."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = {parameter.untyped_storage().data_ptr() for parameter in function.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        # Held until all is counted, so that no address is used twice.
        output = function(z.clone().requires_grad_())
        total = sum(size for address, size in kept.items() if address not in own)
    del output
    return total


class Decoder(nn.Module):
    def __init__(self, generator: NormalizingFlowGenerator) -> None:
        super().__init__()
        self.generator = generator.requires_grad_(False)

    def forward(self, z: Tensor) -> Tensor:
        with self.generator.constant():
            return self.generator.decode(z)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_the_gradient_is_that_of_autograd(dtype: torch.dtype, tolerance: float):
    flow = random_glow(6).to(dtype)
    z, weights = torch.randn(4, 192, dtype=dtype), torch.randn(4, 3, 8, 8, dtype=dtype)
    full, constant = gradient(flow, "full", z, weights), gradient(flow, "constant", z, weights)
    assert (constant - full).norm() / full.norm() < tolerance


def test_the_gradient_of_a_flow_with_one_level_is_that_of_autograd():
    torch.manual_seed(1)
    masks = [torch.tensor([1.0, 0, 1]), torch.tensor([0, 1.0, 1])]
    maps = [nf.nets.MLP([3, 8, 3]) for _ in range(8)]
    couplings = [nf.flows.MaskedAffineFlow(masks[i % 2], maps[2 * i], maps[2 * i + 1]) for i in range(4)]
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(3), couplings).double().eval()
    z, weights = torch.randn(5, 3).double(), torch.randn(5, 3).double()
    torch.testing.assert_close(gradient(flow, "constant", z, weights), gradient(flow, "full", z, weights))


def test_bytes_saved_for_the_gradient_do_not_grow_with_depth():
    z = torch.randn(4, 192)
    saved = {
        (memory, steps): bytes_saved(Decoder(NormalizingFlowGenerator(random_glow(steps), memory=memory)), z)
        for memory in ("full", "constant")
        for steps in (2, 8)
    }
    assert saved["constant", 8] == saved["constant", 2]
    assert saved["full", 8] > 2 * saved["full", 2]
    assert saved["constant", 2] < saved["full", 2]


def test_each_coupling_network_runs_once_on_the_way_back():
    flow = random_glow(3)
    calls = []
    for module in flow.modules():
        if isinstance(module, nf.flows.AffineCoupling):
            module.param_map.register_forward_hook(lambda *_: calls.append(1))
    couplings = sum(isinstance(module, nf.flows.AffineCoupling) for module in flow.modules())
    gradient(flow, "constant", torch.randn(2, 192), torch.randn(2, 3, 8, 8))
    assert len(calls) == 2 * couplings


def test_elsewhere_than_in_a_search_parameters_have_gradients():
    flow = random_glow(2)
    NormalizingFlowGenerator(flow, memory="constant").decode(torch.randn(2, 192)).sum().backward()
    assert all(parameter.grad is not None for parameter in flow.flows.parameters())


def test_a_search_walks_the_same_way():
    flow = random_glow(2, (1, 8, 8))
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    x = torch.rand(3, 1, 8, 8)
    target = classifier(x).argmin(1)
    full, constant = (
        DiffeomorphicCounterfactual(classifier, NormalizingFlowGenerator(flow, memory=memory)).counterfactual(
            x, target, confidence=0.99999, max_steps=4
        )
        for memory in ("full", "constant")
    )
    # Nobody arrives, so rounding cannot end one search a step before the other.
    assert full.steps.tolist() == constant.steps.tolist() == [4, 4, 4]
    assert (full.end_scores > full.start_scores).all()
    torch.testing.assert_close(constant.counterfactuals, full.counterfactuals, rtol=0, atol=1e-4)


def test_it_is_not_differentiated_twice():
    generator = NormalizingFlowGenerator(random_glow(1), memory="constant")
    z = torch.randn(2, 192, requires_grad=True)
    with generator.constant():
        (first,) = torch.autograd.grad(generator.decode(z).square().sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


class TestCheckpointed:
    def test_it_gives_what_the_decoder_gives_and_its_gradients(self):
        decoder = nn.Sequential(*[layer for _ in range(6) for layer in (nn.Linear(5, 5), nn.Tanh())])
        z = torch.randn(3, 5, requires_grad=True)
        wanted = [z, *decoder.parameters()]
        output, checkpointed = decoder(z), Checkpointed(decoder)(z)
        torch.testing.assert_close(checkpointed, output)
        gradients = torch.autograd.grad(output.sum(), wanted)
        torch.testing.assert_close(torch.autograd.grad(checkpointed.sum(), wanted), gradients)

    def test_it_saves_less_than_the_decoder(self):
        decoder = nn.Sequential(*[nn.Tanh() for _ in range(16)])
        z = torch.randn(3, 5)
        assert bytes_saved(Checkpointed(decoder), z) < bytes_saved(decoder, z) / 2

    @pytest.mark.parametrize(("layers", "segments"), [(1, 1), (2, 1), (3, 2), (7, 3), (8, 3), (16, 4)])
    def test_by_default_there_are_as_many_segments_as_the_root_of_the_layers(self, layers: int, segments: int):
        assert Checkpointed(nn.Sequential(*[nn.Tanh() for _ in range(layers)])).segments == segments

    def test_segments_may_be_said(self):
        assert Checkpointed(nn.Sequential(*[nn.Tanh() for _ in range(4)]), 3).segments == 3

    @pytest.mark.parametrize("segments", [0, 5, -1])
    def test_segments_out_of_range_are_refused(self, segments: int):
        with pytest.raises(ValueError, match=f"between 1 and the 4 layers, received {segments}"):
            Checkpointed(nn.Sequential(*[nn.Tanh() for _ in range(4)]), segments)

    @pytest.mark.parametrize(("layers", "segments"), [(nn.Linear(2, 2), None), (nn.Sequential(nn.Tanh()), 1.0)])
    def test_other_kinds_are_refused(self, layers: nn.Module, segments: object):
        with pytest.raises(TypeError, match=r"received (Linear|float)"):
            Checkpointed(layers, segments)
