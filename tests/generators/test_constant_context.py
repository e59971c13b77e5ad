r"""Inside ``constant()`` decode and encode stay what they are; whatever happens, nothing is left of it outside."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import ExitStack
from threading import Barrier, Thread

import pytest
import torch
from torch import Tensor, nn

from captum_dcf import DiffeomorphicCounterfactual
from captum_dcf.generators import NormalizingFlowGenerator
from captum_dcf.models.glow import InvertibleConv, glow


def generator_of_glow(memory: str = "full") -> NormalizingFlowGenerator:
    torch.manual_seed(1)
    flow = glow((1, 4, 4), (2, 1), (4, 4)).eval()
    with torch.no_grad():
        flow.inverse_and_log_det(torch.rand(16, 1, 4, 4))
    return NormalizingFlowGenerator(flow, memory=memory)


def change_convolutions(generator: nn.Module) -> None:
    with torch.no_grad():
        for part in generator.modules():
            if isinstance(part, InvertibleConv):
                part.log_S += 0.5


@torch.enable_grad()
def assert_follows_its_parameters(generator: NormalizingFlowGenerator) -> None:
    r"""Decoding and encoding use the present parameters, and all of them that decode have a gradient."""
    z = torch.randn(2, 16)
    with torch.no_grad():
        before = generator.decode(z)
        change_convolutions(generator)
        after = generator.decode(z)
        torch.testing.assert_close(after, NormalizingFlowGenerator(generator.flow).decode(z))
        assert (after - before).abs().max() > 1e-3
        torch.testing.assert_close(generator.encode(after), z, rtol=1e-3, atol=1e-3)
    decoding = [*generator.flow.flows.parameters()]
    gradients = torch.autograd.grad(generator.decode(z).sum(), decoding, allow_unused=True)
    assert all(gradient is not None for gradient in gradients)


def in_threads(count: int, work: Callable[[int], None]) -> None:
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors, errors


@pytest.mark.parametrize("memory", ["full", "constant"])
def test_it_ends_with_its_block(memory: str):
    generator, z = generator_of_glow(memory), torch.randn(2, 16)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    with torch.no_grad():
        expected = generator.decode(z)
        with generator.constant():
            torch.testing.assert_close(generator.decode(z), expected)
            torch.testing.assert_close(generator.encode(expected), z, rtol=1e-4, atol=1e-4)
    assert generator.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert_follows_its_parameters(generator)


def test_contexts_may_be_nested_and_end_on_exceptions():
    generator, z = generator_of_glow(), torch.randn(2, 16)
    with torch.no_grad(), generator.constant():
        with pytest.raises(ValueError, match=r"\(1, 3\)"), generator.constant():
            generator.decode(torch.zeros(1, 3))
        # Still inside the outer one: what is in its layers counts, not the parameters.
        inside = generator.decode(z)
        change_convolutions(generator)
        torch.testing.assert_close(generator.decode(z), inside)
    assert_follows_its_parameters(generator)
    with pytest.raises(KeyboardInterrupt), generator.constant():
        raise KeyboardInterrupt
    assert_follows_its_parameters(generator)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_contexts_may_end_in_any_order(order: tuple[int, ...]):
    generator = generator_of_glow()
    contexts = [generator.constant() for _ in range(3)]
    for context in contexts:
        context.__enter__()
    for number in order:
        contexts[number].__exit__(None, None, None)
    assert_follows_its_parameters(generator)


def test_a_context_may_be_left_in_another_thread():
    generator, context = generator_of_glow(), ExitStack()
    context.enter_context(generator.constant())
    in_threads(1, lambda number: context.close())
    assert_follows_its_parameters(generator)


def test_overlapping_contexts_of_eight_threads_leave_nothing_behind():
    generator, z = generator_of_glow(), torch.randn(3, 16)
    with torch.no_grad():
        expected = generator.decode(z)
    # All threads have entered before the first leaves; odd ones leave before even ones begin to decode again.
    entered, left = Barrier(8), Barrier(8)

    def work(number: int) -> None:
        with torch.no_grad():
            with generator.constant():
                entered.wait(30)
                torch.testing.assert_close(generator.decode(z), expected)
                if number % 2 == 0:
                    left.wait(30)
                    torch.testing.assert_close(generator.decode(z), expected)
            if number % 2:
                left.wait(30)
            torch.testing.assert_close(generator.decode(z), expected)

    in_threads(8, work)
    assert_follows_its_parameters(generator)


def test_a_context_holds_for_its_own_thread():
    generator, z = generator_of_glow(), torch.randn(2, 16)
    decoded: list[Tensor] = []

    @torch.no_grad()
    def decode(number: int) -> None:
        decoded.append(generator.decode(z))

    with torch.no_grad(), generator.constant():
        inside = generator.decode(z)
        change_convolutions(generator)
        in_threads(1, decode)
        torch.testing.assert_close(generator.decode(z), inside)
    with torch.no_grad():
        torch.testing.assert_close(decoded[0], generator.decode(z))


def test_searches_of_several_threads_on_one_flow_give_what_each_gives_alone():
    generator, x = generator_of_glow(), 0.3 + 0.4 * torch.rand(4, 1, 4, 4)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    method = DiffeomorphicCounterfactual(classifier, generator)

    def search(number: int) -> Tensor:
        return method.counterfactual(x[number : number + 1], 1, confidence=0.9999, max_steps=3).counterfactuals

    alone = [search(number) for number in range(4)]
    together: dict[int, Tensor] = {}
    in_threads(4, lambda number: together.update({number: search(number)}))
    for number in range(4):
        torch.testing.assert_close(together[number], alone[number], rtol=0, atol=1e-4)
    assert_follows_its_parameters(generator)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda generator: pickle.loads(pickle.dumps(generator))}


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_made_inside_carries_nothing(way: str):
    generator, z = generator_of_glow(), torch.randn(2, 16)
    with torch.no_grad(), generator.constant():
        twin = COPIES[way](generator)
        torch.testing.assert_close(twin.decode(z), generator.decode(z))
        assert_follows_its_parameters(twin)
    assert_follows_its_parameters(twin)
    with torch.no_grad(), twin.constant():
        assert twin.decode(z).isfinite().all()
