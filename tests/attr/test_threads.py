r"""C2: searches in many threads, on one model and one generator, give what they give one after the other."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import Tensor, nn
from toys import RowClassifier, images

from captum_dcf import (
    ContrastiveCounterfactual,
    Counterfactual,
    CounterfactualAttribution,
    DiffeomorphicCounterfactual,
    LatentShift,
    NaturalCounterfactual,
    PrototypeCounterfactual,
    Revise,
)
from captum_dcf.generators import NormalizingFlowGenerator
from captum_dcf.models.glow import glow

THREADS = 8


@pytest.fixture(scope="module")
def flow() -> NormalizingFlowGenerator:
    torch.manual_seed(4)
    built = glow((1, 4, 4), [2], [8])
    with torch.no_grad():
        built.log_prob(torch.rand(32, 1, 4, 4), None)
    return NormalizingFlowGenerator(built.eval())


def methods(model: nn.Module, flow: NormalizingFlowGenerator) -> list[CounterfactualAttribution]:
    reference = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(9))
    made = [
        DiffeomorphicCounterfactual(model, flow),
        Revise(model, flow),
        LatentShift(model, flow),
        NaturalCounterfactual(model, flow, samples=64, shell_width=0.5, max_samples=640),
        ContrastiveCounterfactual(model, c=100.0, outer_steps=1),
        PrototypeCounterfactual(model, reference, flow, theta=0.1, c=100.0, outer_steps=1),
    ]
    for method in made:
        method.default_max_steps = min(method.default_max_steps, 20)
    return made


def photograph(*modules: nn.Module) -> list[tuple[bool, Tensor]]:
    return [(one.requires_grad, one.detach().clone()) for module in modules for one in module.parameters()]


def test_c2_threads_give_what_one_thread_gives_and_leave_nothing_behind(flow: NormalizingFlowGenerator):
    model = RowClassifier().eval()
    model.linear.bias.requires_grad_(False)
    before = photograph(model, flow)
    x = images(2)
    searched = methods(model, flow)
    asked = [(searched[k % len(searched)], k % 3) for k in range(3 * THREADS)]

    def search(job: tuple[CounterfactualAttribution, int]) -> Counterfactual:
        method, target = job
        return method.counterfactual(x, target, confidence=0.6)

    expected = [search(job) for job in asked]
    barrier = Barrier(THREADS)
    with ThreadPoolExecutor(THREADS, initializer=barrier.wait) as pool:
        results = list(pool.map(search, asked))

    for result, single in zip(results, expected):
        assert torch.equal(result.status, single.status)
        torch.testing.assert_close(result.counterfactuals, single.counterfactuals, rtol=0, atol=1e-4)
        torch.testing.assert_close(result.end_scores, single.end_scores, rtol=0, atol=1e-4)
    assert any(result.reached.any() for result in results)
    for (flag, value), (was, old) in zip(photograph(model, flow), before):
        assert flag == was
        assert torch.equal(value, old)


def test_c2_nothing_of_the_weights_is_remembered_after_the_threads_are_done(flow: NormalizingFlowGenerator):
    flow, model = copy.deepcopy(flow), RowClassifier().eval()
    method = DiffeomorphicCounterfactual(model, flow)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda k: method.counterfactual(images(1, k), k % 3, max_steps=5), range(THREADS)))
    z = flow.encode(images(2)).detach()
    with torch.no_grad():
        before = flow.decode(z)
        for parameter in flow.parameters():
            parameter.mul_(1.05)
        fresh = copy.deepcopy(flow)
        assert not torch.allclose(flow.decode(z), before)
        torch.testing.assert_close(flow.decode(z), fresh.decode(z))
    # Every weight that a decode depends on gets its gradient, so the flow can be trained on.
    flow.decode(z).sum().backward()
    fresh.decode(z).sum().backward()
    assert [one.grad is None for one in flow.parameters()] == [one.grad is None for one in fresh.parameters()]
    assert any(one.grad is not None for one in flow.parameters())
