r"""Modules that are not ready for a search are refused, whatever torch has made of them."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from toys import Rotated, RowClassifier, images

from captum_dcf import DiffeomorphicCounterfactual, Generator


@pytest.mark.parametrize("layer", [torchvision.ops.DropBlock2d, torchvision.ops.DropBlock3d])
def test_drop_block_in_training_mode(generator: Generator, layer: type[nn.Module]):
    model = RowClassifier().eval()
    model.part = layer(0.3, 3).train()
    method = DiffeomorphicCounterfactual(model, generator)
    with pytest.raises(ValueError, match=rf"part \({layer.__name__}\) is in training mode"):
        method.attribute(images(3), target=1)
    model.part.eval()
    assert method.counterfactual(images(3), target=1).reached.all()


def test_blocks_that_are_never_dropped_may_be_in_training_mode(generator: Generator):
    for part in (torchvision.ops.DropBlock2d(0.0, 3), torchvision.ops.StochasticDepth(0.0, "row")):
        model = RowClassifier().eval()
        model.part = part.train()
        assert DiffeomorphicCounterfactual(model, generator).counterfactual(images(3), target=1).reached.all()


def test_a_scripted_and_frozen_model(generator: Generator):
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.Dropout(), RowClassifier()).eval()
    frozen = torch.jit.freeze(torch.jit.script(model))
    result, own = (
        DiffeomorphicCounterfactual(function, generator).counterfactual(images(3), target=1, max_steps=3)
        for function in (frozen, model)
    )
    torch.testing.assert_close(result.counterfactuals, own.counterfactuals, rtol=0, atol=1e-4)


def test_lazy_layers_without_weights(classifier: nn.Module, generator: Generator):
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3)).eval()
    with pytest.raises(ValueError, match=r"Sequential has lazy layers.*call it once"):
        DiffeomorphicCounterfactual(model, generator).attribute(images(3), target=1)
    lazy = Rotated()
    lazy.head = nn.LazyLinear(3)
    with pytest.raises(ValueError, match=r"Rotated has lazy layers"):
        DiffeomorphicCounterfactual(classifier, lazy.eval()).attribute(images(3), target=1)
    model(images(1))
    assert DiffeomorphicCounterfactual(model, generator).attribute(images(3), target=1).isfinite().all()
