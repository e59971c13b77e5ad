r"""Contexts put back what they change, in whatever order and thread they end, also after an exception."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from toys import Rotated, RowClassifier, images

from captum_dcf import DiffeomorphicCounterfactual
from captum_dcf.context import fixed_parameters, ordinary_mode, preserve_random_state


def flags(*modules: nn.Module) -> list[bool]:
    return [parameter.requires_grad for module in modules for parameter in module.parameters()]


def half_frozen() -> RowClassifier:
    model = RowClassifier()
    model.linear.bias.requires_grad_(False)
    return model


def test_parameters_are_fixed_inside_and_as_before_afterwards():
    model = half_frozen()
    with fixed_parameters([model, model]):
        assert flags(model) == [False, False]
    assert flags(model) == [True, False]
    with pytest.raises(ZeroDivisionError), fixed_parameters([model]):
        1 / 0  # noqa: B018
    assert flags(model) == [True, False]


@pytest.mark.parametrize("first", [0, 1])
def test_c2_contexts_that_overlap_may_end_in_any_order(first: int):
    model, other = half_frozen(), Rotated()
    # The second shares the model only.
    contexts = [fixed_parameters([model, other]), fixed_parameters([model])]
    for one in contexts:
        one.__enter__()
    contexts[first].__exit__(None, None, None)
    assert flags(model) == [False, False]
    assert flags(other) == [first == 0]
    contexts[1 - first].__exit__(None, None, None)
    assert flags(model, other) == [True, False, True]


def test_c2_contexts_of_many_threads():
    model = half_frozen()
    wrong: list[list[bool]] = []
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        for _ in range(200):
            with fixed_parameters([model]):
                if any(flags(model)):
                    wrong.append(flags(model))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert wrong == []
    assert flags(model) == [True, False]


@pytest.mark.skipif(not hasattr(torch.amp, "is_autocast_available"), reason="needs torch 2.5")
@pytest.mark.parametrize("device", ["cpu", "mps", "xpu"])
def test_autocast_is_off_for_a_search_on_any_device(device: str):
    if not torch.amp.is_autocast_available(device):
        pytest.skip(f"this torch has no autocast for {device}")
    with torch.autocast(device, dtype=torch.float16 if device == "mps" else torch.bfloat16):
        with ordinary_mode(torch.device(device)):
            assert not torch.is_autocast_enabled(device)
        assert torch.is_autocast_enabled(device)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradients_are_on_in_ordinary_mode_whatever_the_callers(mode: type):
    with mode():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        with ordinary_mode(torch.device("cpu")):
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == (True, False)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before


def draw(count: int) -> Tensor:
    drawn = torch.rand(3)
    if count < 0:
        raise ValueError("negative")
    return drawn


def test_the_random_state_is_put_back():
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="negative"), preserve_random_state(torch.device("cpu")):
        draw(-1)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_random_state_of_mps_is_put_back_too(monkeypatch: pytest.MonkeyPatch):
    put_back: list[Tensor] = []
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: torch.tensor([7], dtype=torch.uint8))
    monkeypatch.setattr(torch.mps, "set_rng_state", put_back.append)
    with pytest.raises(ZeroDivisionError), preserve_random_state(torch.device("mps")):
        1 / 0  # noqa: B018
    assert [state.tolist() for state in put_back] == [[7]]


class Watched(Rotated):
    r"""Notes whether it is asked inside of its own context."""

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.entered = 0, 0
        self.asked: list[int] = []

    @contextmanager
    def constant(self) -> Iterator[None]:
        self.depth, self.entered = self.depth + 1, self.entered + 1
        try:
            yield
        finally:
            self.depth -= 1

    def encode(self, x: Tensor) -> Tensor:
        self.asked.append(self.depth)
        return super().encode(x)

    def decode(self, z: Tensor) -> Tensor:
        self.asked.append(self.depth)
        return super().decode(z)


def test_a_search_is_inside_the_constant_context_of_its_generator(classifier: nn.Module):
    generator = Watched()
    DiffeomorphicCounterfactual(classifier, generator).counterfactual(images(3), target=1, refine=True)
    assert len(generator.asked) > 6
    assert set(generator.asked) == {1}
    assert (generator.entered, generator.depth) == (1, 0)


def test_the_constant_context_ends_with_an_exception_too():
    def broken(x: Tensor) -> Tensor:
        raise KeyError("the model broke")

    generator = Watched()
    with pytest.raises(KeyError):
        DiffeomorphicCounterfactual(broken, generator).attribute(images(2), target=1)
    assert (generator.entered, generator.depth) == (1, 0)


def test_a_generator_that_is_the_model_too_is_entered_once():
    class Both(Watched):
        def forward(self, x: Tensor) -> Tensor:
            return 20 * self.encode(x)[:, :3]

    generator = Both()
    DiffeomorphicCounterfactual(generator, generator).attribute(images(2), target=1, confidence=0.6)
    assert generator.entered == 1
