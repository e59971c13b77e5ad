r"""Modules that are not ready for a search are refused, however they are called and whatever torch has made of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import normflows as nf
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from toys import Rotated, RowClassifier, images

from captum_dcf import DiffeomorphicCounterfactual, Generator, PrototypeCounterfactual
from captum_dcf.attr._modules import modules_of
from captum_dcf.generators import NormalizingFlowGenerator
from captum_dcf.models.glow import glow

pytestmark = pytest.mark.filterwarnings("ignore::captum_dcf.CounterfactualWarning")


def ask(function: Callable[..., Any], generator: Generator) -> None:
    DiffeomorphicCounterfactual(function, generator).attribute(images(3), target=1)


LAYERS = [
    (nn.BatchNorm2d(1), r"0 \(BatchNorm2d\) uses batch statistics: call .eval\(\)"),
    (nn.SyncBatchNorm(1), r"0 \(SyncBatchNorm\) uses batch statistics"),
    (nn.Dropout(0.5), r"0 \(Dropout\) is in training mode: call .eval\(\)"),
    (nn.Dropout2d(0.5), r"0 \(Dropout2d\) is in training mode: call .eval\(\)"),
    (torchvision.ops.StochasticDepth(0.5, "row"), r"0 \(StochasticDepth\) is in training mode"),
    (torchvision.ops.DropBlock2d(0.3, 3), r"0 \(DropBlock2d\) is in training mode"),
    (torchvision.ops.DropBlock3d(0.3, 3), r"0 \(DropBlock3d\) is in training mode"),
    (nn.InstanceNorm2d(1, track_running_stats=True), r"0 \(InstanceNorm2d\) is in training mode"),
    (nn.utils.spectral_norm(nn.Conv2d(1, 1, 1)), r"0 \(Conv2d\) is in training mode"),
    (spectral_norm(nn.Conv2d(1, 1, 1)), r"_SpectralNorm\) is in training mode"),
    (torch.jit.script(nn.Sequential(nn.BatchNorm2d(1))), r"0.0 \(BatchNorm2d\) uses batch statistics"),
    (torch.jit.script(nn.Sequential(nn.Dropout(0.5))), r"0.0 \(Dropout\) is in training mode"),
]


@pytest.mark.parametrize(("layer", "says"), LAYERS)
def test_a_model_in_training_mode(generator: Generator, layer: nn.Module, says: str):
    model = nn.Sequential(layer, RowClassifier()).train()
    with pytest.raises(ValueError, match=says):
        ask(model, generator)


@pytest.mark.parametrize("layer", [one for one, _ in LAYERS if not isinstance(one, (nn.SyncBatchNorm, nn.Conv2d))])
def test_in_evaluation_mode_it_is_taken(generator: Generator, layer: nn.Module):
    model = nn.Sequential(layer, RowClassifier()).eval()
    if isinstance(layer, torchvision.ops.DropBlock3d):
        model = nn.Sequential(nn.Unflatten(1, (1, 1)), layer, RowClassifier()).eval()
    assert DiffeomorphicCounterfactual(model, generator).counterfactual(images(3), target=1).reached.all()


class Holder:
    r"""A plain object that holds a module."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, x: Tensor) -> Tensor:
        return self.model(x)

    def predict(self, x: Tensor) -> Tensor:
        return self.model(x)


class Slotted:
    __slots__ = ("__dict__", "model")

    def __call__(self, x: Tensor) -> Tensor:
        return GLOBAL(x)


def noted(function: Any) -> Any:
    # A partial with a note of its own is not merged with the next one around it.
    function = partial(function)
    function.note = "mine"
    return function


def decorated(model: nn.Module) -> Callable[[Tensor], Tensor]:
    @wraps(model.forward)
    @torch.enable_grad()
    def function(x: Tensor) -> Tensor:
        return model(x)

    return function


GLOBAL = nn.Sequential(nn.Dropout(0.5), RowClassifier())


def through_a_global(x: Tensor) -> Tensor:
    return (lambda y: GLOBAL(y))(x)


WAYS: dict[str, Callable[[nn.Module], Callable[..., Any]]] = {
    "the module": lambda model: model,
    "its forward": lambda model: model.forward,
    "its __call__": lambda model: model.__call__,
    "DataParallel": nn.DataParallel,
    "a partial": lambda model: partial(model),
    "a partial of a partial": lambda model: partial(noted(model.forward)),
    "a partial that is given it": lambda model: partial(lambda net, x: net(x), model),
    "a partial that is given it by name": lambda model: partial(lambda x, net: net(x), net=model),
    "a lambda": lambda model: lambda x: model(x),
    "a lambda in a lambda": lambda model: (lambda inner: lambda x: inner(x))(lambda x: model(x)),
    "a lambda with a function in it": lambda model: lambda x: (lambda y: model(y))(x),
    "a decorated function": decorated,
    "an object": Holder,
    "a method of an object": lambda model: Holder(model).predict,
    "an object in a lambda": lambda model: (lambda holder: lambda x: holder(x))(Holder(model)),
    "an object that holds a lambda": lambda model: Holder(lambda x: model(x)),
    "an ensemble": lambda model: (lambda nets: lambda x: sum(net(x) for net in nets))([model, RowClassifier()]),
    "a dict of models": lambda model: (lambda nets: lambda x: nets["a"](x))({"a": model}),
    "a global": lambda model: through_a_global,
    "an object with a global": lambda model: Slotted(),
}


@pytest.mark.parametrize("way", WAYS)
def test_c16_a_module_is_seen_through(generator: Generator, way: str):
    model = nn.Sequential(nn.Dropout(0.5), RowClassifier())
    with pytest.raises(ValueError, match=r"0 \(Dropout\) is in training mode: call .eval\(\)"):
        ask(WAYS[way](model), generator)
    model.eval()
    if "global" not in way:
        assert modules_of(WAYS[way](model))[-1:] != []
        ask(WAYS[way](model), generator)


def test_c16_an_attribute_is_no_global_of_that_name():
    class Net:
        GLOBAL = staticmethod(lambda x: x)

    assert modules_of(lambda x: Net.GLOBAL(x)) == []


def test_c16_what_is_no_function_of_modules_has_none():
    loop: list[Any] = []
    loop.append(loop)
    assert modules_of(lambda x: loop or undefined(x)) == []  # noqa: F821
    assert modules_of(torch.relu) == []
    assert modules_of(len) == []
    assert modules_of(torch.nn.functional.softmax) == []
    assert modules_of(RowClassifier) == []
    # A long list is data.
    data = [RowClassifier()] * 65
    assert modules_of(lambda x: data[0](x)) == []


def test_each_module_is_seen_once():
    model = RowClassifier()
    assert modules_of(partial(lambda net, x: net(x) + model(x), model)) == [model]


@pytest.mark.parametrize("part", [nn.RReLU(), nn.GRU(4, 4, num_layers=2, dropout=0.5)])
def test_a_model_that_draws_random_numbers(generator: Generator, part: nn.Module):
    model = RowClassifier().eval()
    model.part = part.train()
    with pytest.raises(ValueError, match=rf"part \({type(part).__name__}\) is in training mode"):
        ask(model, generator)


def test_batch_statistics_are_refused_in_evaluation_mode_too(generator: Generator):
    model = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), RowClassifier()).eval()
    with pytest.raises(ValueError, match="batch statistics"):
        ask(model, generator)


@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.0), torchvision.ops.DropBlock2d(0.0, 3), torchvision.ops.StochasticDepth(0.0, "row")]
)
def test_layers_that_never_drop_may_be_in_training_mode(generator: Generator, layer: nn.Module):
    ask(nn.Sequential(layer.train(), RowClassifier()), generator)


def test_a_generator_in_training_mode(classifier: nn.Module):
    generator = Rotated()
    generator.norm = nn.BatchNorm1d(16)
    with pytest.raises(ValueError, match=r"Rotated.norm \(BatchNorm1d\) uses batch statistics"):
        ask(classifier, generator.train())
    with pytest.raises(ValueError, match=r"Rotated.norm \(BatchNorm1d\) uses batch statistics"):
        PrototypeCounterfactual(classifier, torch.rand(9, 1, 4, 4), generator).attribute(images(2), target=1)


def test_a_flow_that_has_not_seen_data(classifier: nn.Module):
    # The first batch would set its scales, whoever shows it.
    flow = glow((1, 4, 4), [1], [4]).eval()
    with pytest.raises(ValueError, match=r"ActNorm.*has not seen data"):
        ask(classifier, NormalizingFlowGenerator(flow))
    assert not any(p.data_dep_init_done for p in flow.modules() if isinstance(p, nf.flows.ActNorm))


def test_c15_a_scripted_and_frozen_model(generator: Generator):
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.Dropout(), RowClassifier()).eval()
    frozen = torch.jit.freeze(torch.jit.script(model))
    result, own = (
        DiffeomorphicCounterfactual(function, generator).counterfactual(images(3), target=1, max_steps=3)
        for function in (frozen, model)
    )
    torch.testing.assert_close(result.counterfactuals, own.counterfactuals, rtol=0, atol=1e-4)


def test_c27_lazy_layers_without_weights(classifier: nn.Module, generator: Generator):
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3)).eval()
    with pytest.raises(ValueError, match=r"Sequential has lazy layers.*call it once"):
        ask(model, generator)
    lazy = Rotated()
    lazy.head = nn.LazyLinear(3)
    with pytest.raises(ValueError, match=r"Rotated has lazy layers"):
        ask(classifier, lazy.eval())
    model(images(1))
    assert DiffeomorphicCounterfactual(model, generator).perturb(images(3), 1, max_steps=1).isfinite().all()


def test_a_model_made_in_inference_mode(generator: Generator):
    with torch.inference_mode():
        model = RowClassifier().eval()
    with pytest.raises(ValueError, match=r"RowClassifier has parameters without gradients: make it outside of"):
        ask(model, generator)
    assert all(parameter.requires_grad for parameter in generator.parameters())


class ConvBatchNorm(nn.Module):
    r"""A block that is named like what is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class MultiheadAttention(nn.Module):
    r"""A user's own, in which a module is named like a number of torch's."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(share)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x)


def test_modules_are_known_by_what_they_are_not_by_their_names(generator: Generator):
    for part in (ConvBatchNorm().eval(), torch.jit.script(ConvBatchNorm().eval()), MultiheadAttention(0.0).train()):
        ask(nn.Sequential(part, RowClassifier()), generator)
    for part, says in (
        (ConvBatchNorm(), r"0.norm \(BatchNorm2d\) uses batch statistics"),
        (torch.jit.script(ConvBatchNorm()), r"0.norm \(BatchNorm2d\) uses batch statistics"),
        (MultiheadAttention(0.5), r"0.dropout \(Dropout\) is in training mode"),
        (torch.jit.script(nn.Sequential(nn.InstanceNorm2d(1, track_running_stats=True))), "InstanceNorm2d"),
    ):
        with pytest.raises(ValueError, match=says):
            ask(nn.Sequential(part, RowClassifier()), generator)
