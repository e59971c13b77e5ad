r"""Fixtures of all tests. The toys behind them stand in toys.py."""

from __future__ import annotations

import matplotlib
import pytest
import torch
from torch import nn
from toys import Mnist, Rotated, RowClassifier

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


@pytest.fixture(scope="session")
def mnist() -> Mnist:
    from captum_dcf import zoo
    from captum_dcf.data import mnist_sample

    return Mnist(*mnist_sample(), zoo.load("mnist-cnn"), zoo.load("mnist-glow"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
