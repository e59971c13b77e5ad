r"""Nothing of the caller's is changed, also where the search breaks off."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import Rotated, RowClassifier, images

from captum_dcf import CounterfactualAttribution, DiffeomorphicCounterfactual


class Stateful(nn.Module):
    r"""A classifier with all that can be changed: buffers, hooks, gradients, one frozen parameter, mixed modes."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = RowClassifier()
        self.norm = nn.BatchNorm2d(1)
        self.dropout = nn.Dropout()
        self.eval()
        # Modes may be mixed: a container in training mode is no mistake.
        self.training = True
        self.rows.train()
        self.rows.linear.bias.requires_grad_(False)
        self.rows.linear.weight.grad = torch.full((3, 16), 7.0)
        self.seen = 0
        self.fails_at: int | None = None
        self.rows.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.seen += 1

    def forward(self, x: Tensor) -> Tensor:
        if self.seen == self.fails_at:
            raise KeyError("the model broke")
        return self.rows(self.dropout(self.norm(x)))


def photograph(module: nn.Module) -> list[Any]:
    state: list[Any] = []
    for name, part in module.named_modules():
        hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks)
        state.append((name, part.training, [dict(hook) for hook in hooks]))
    for name, parameter in module.named_parameters():
        grad = None if parameter.grad is None else parameter.grad.tolist()
        state.append((name, id(parameter), parameter.requires_grad, grad, parameter.tolist()))
    state += [(name, id(buffer), buffer.tolist()) for name, buffer in module.named_buffers()]
    return state


@contextmanager
def unchanged(*things: nn.Module | Tensor) -> Iterator[None]:
    def look() -> list[Any]:
        modules = [photograph(thing) for thing in things if isinstance(thing, nn.Module)]
        tensors = [thing for thing in things if isinstance(thing, Tensor)]
        of_tensors = [(t.tolist(), t.requires_grad, t.grad is None, t._version, t.stride()) for t in tensors]
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()
        return [modules, of_tensors, modes, torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()]

    before = look()
    yield
    assert look() == before


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", ["attribute", "perturb", "counterfactual"])
def test_a_search_changes_nothing(name: str, requires_grad: bool):
    model, generator = Stateful(), Rotated()
    x, target = images(4).requires_grad_(requires_grad), torch.tensor([0, 1, 2, 1])
    method = DiffeomorphicCounterfactual(model, generator)
    with unchanged(model, generator, x, target):
        getattr(method, name)(x, target, refine=True)
    assert model.seen > 5
    assert [p.requires_grad for p in model.rows.parameters()] == [True, False]


@pytest.mark.parametrize("fails_at", [0, 1, 4])
@pytest.mark.parametrize(
    "of_model", [lambda model: model, lambda model: model.forward, lambda model: lambda x: model(x)]
)
def test_a_search_that_breaks_off_changes_nothing(fails_at: int, of_model: Callable[[Stateful], Callable[..., Tensor]]):
    model, generator, x = Stateful(), Rotated(), images(4).requires_grad_()
    model.fails_at = fails_at
    method = DiffeomorphicCounterfactual(of_model(model), generator)
    with unchanged(model, generator, x), pytest.raises(KeyError, match="the model broke"):
        method.attribute(x, target=1)


def test_a_generator_that_breaks_changes_nothing():
    class Breaking(Rotated):
        decodes = 0

        def decode(self, z: Tensor) -> Tensor:
            self.decodes += 1
            if self.decodes == 3:
                raise KeyError("the generator broke")
            return super().decode(z)

    model, generator, x = Stateful(), Breaking(), images(4)
    with unchanged(model, generator, x), pytest.raises(KeyError, match="the generator broke"):
        DiffeomorphicCounterfactual(model, generator).attribute(x, target=1)


def test_parameters_shared_by_model_and_generator_come_back_trainable():
    model, generator = RowClassifier(), Rotated()
    generator.shared = model.linear
    DiffeomorphicCounterfactual(model, generator).attribute(images(2), target=1)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_parameters_do_not_require_gradients_during_the_search():
    model, generator = RowClassifier(), Rotated()
    seen: list[bool] = []

    def look(*_: object) -> None:
        seen.extend(parameter.requires_grad for parameter in (*model.parameters(), *generator.parameters()))

    model.register_forward_hook(look)
    DiffeomorphicCounterfactual(model, generator).attribute(images(2), target=1)
    assert seen
    assert not any(seen)


def test_the_result_shares_no_memory_with_the_inputs(method: DiffeomorphicCounterfactual):
    x = images(2)
    x[0, :, 1] = 1.0
    x[0, :, 0], x[0, :, 2] = 0.0, 0.0
    result = method.counterfactual(x, target=1, keep_path=True)
    kept = {name: value.clone() for name, value in vars(result).items() if isinstance(value, Tensor)}
    x.zero_()
    for name, value in kept.items():
        assert torch.equal(getattr(result, name), value)


def test_nothing_is_kept_between_calls(method: DiffeomorphicCounterfactual):
    x = images(2)
    own = weakref.ref(method.counterfactual(x, target=1).counterfactuals)
    gc.collect()
    assert own() is None
    before = {key: id(value) for key, value in vars(method).items()}
    method.attribute(x, target=1)
    assert {key: id(value) for key, value in vars(method).items()} == before


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
def test_no_method_changes_anything(make: Callable[..., CounterfactualAttribution]):
    model, generator, x, target = Stateful(), Rotated(), images(3), torch.tensor([0, 1, 2])
    method = make(model, generator)
    with unchanged(model, generator, x, target):
        assert method.counterfactual(x, target, confidence=0.6).reached.all()
    assert model.seen > 2


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, MemoryError, ValueError])
def test_no_method_that_breaks_off_changes_anything(
    make: Callable[..., CounterfactualAttribution], error: type[BaseException]
):
    class Breaking(Stateful):
        def forward(self, x: Tensor) -> Tensor:
            if self.seen == 2:
                raise error("the model broke")
            return super().forward(x)

    model, generator, x = Breaking(), Rotated(), images(3)
    method = make(model, generator)
    with unchanged(model, generator, x), pytest.raises(error, match="the model broke"):
        method.counterfactual(x, target=1)


def test_the_latents_that_are_given_are_left_as_they_were(method: DiffeomorphicCounterfactual):
    latents = method.generator.encode(images(2)).detach().requires_grad_()
    with unchanged(latents):
        result = method.counterfactual(images(2), target=1, latents=latents)
    assert result.reached.all()
    assert not result.start_latents.requires_grad
    latents.data.zero_()
    assert (result.start_latents != 0).any()


def test_c38_what_a_model_draws_or_counts_is_its_own(generator: Rotated):
    class Noisy(RowClassifier):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.tensor(0))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x) + 1e-6 * torch.randn(1)

    model = Noisy().eval()
    before = torch.get_rng_state()
    result = DiffeomorphicCounterfactual(model, generator).counterfactual(images(1), target=1)
    # One pass on the input, one on the reconstruction, one in each step.
    assert int(model.calls) == 2 + int(result.steps)
    assert not torch.equal(torch.get_rng_state(), before)
    assert "draws random numbers or counts in a buffer" in " ".join(CounterfactualAttribution.__doc__.split())
