r"""Fixtures of all tests. The toys behind them stand in toys.py."""

from __future__ import annotations

from typing import NamedTuple

import matplotlib
import pytest
import torch
from torch import Tensor, nn
from toys import RowClassifier, Rotated

from captum_dcf import DiffeomorphicCounterfactual, Generator

matplotlib.use("Agg")


@pytest.fixture
def classifier() -> nn.Module:
    return RowClassifier().eval()


@pytest.fixture
def generator() -> Generator:
    return Rotated().eval()


@pytest.fixture
def method(classifier: nn.Module, generator: Generator) -> DiffeomorphicCounterfactual:
    return DiffeomorphicCounterfactual(classifier, generator)


class Mnist(NamedTuple):
    r"""The bundled digits and the shipped models."""

    images: Tensor
    labels: Tensor
    classifier: nn.Module
    generator: Generator


@pytest.fixture(scope="session")
def mnist() -> Mnist:
    from captum_dcf import zoo
    from captum_dcf.data import mnist_sample

    return Mnist(*mnist_sample(), zoo.load("mnist-cnn"), zoo.load("mnist-glow"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
