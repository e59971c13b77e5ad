r"""What is explained in a measurement: a model, a generator and images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captum_dcf import Generator, zoo
from captum_dcf.data import mnist_sample

__all__ = ["TASKS", "Plain", "Task", "parameters_require"]


@dataclass(frozen=True)
class Task:
    r"""What is explained, with everything on one device."""

    classifier: nn.Module
    generator: Generator
    images: Tensor
    target: int
    confidence: float
    learning_rate: float  # the paper's, for Adam
    references: tuple[Tensor, Tensor]  # real images and their labels, for the oracle and the neighbours


class Plain(Generator):
    r"""A generator that uses the fact nowhere that parameters are constant in a search."""

    exact = True

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator
        self.data_range = generator.data_range

    def encode(self, x: Tensor) -> Tensor:
        return self.generator.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.generator.decode(z)

    def typical_length(self, z: Tensor) -> Tensor:
        return self.generator.typical_length(z)


def mnist_task(device: torch.device, images: int) -> Task:
    r"""Fours, sevens and fives of the bundled test digits, to become nines."""
    digits, labels = mnist_sample()
    sources = (labels == 4) | (labels == 7) | (labels == 5)
    shuffled = digits[sources][torch.randperm(int(sources.sum()), generator=torch.Generator().manual_seed(0))]
    if images > len(shuffled):
        raise ValueError(f"there are {len(shuffled)} images, asked for {images}")
    return Task(
        classifier=zoo.load("mnist-cnn").to(device),
        generator=zoo.load("mnist-glow").to(device),
        images=shuffled[:images].to(device),
        target=9,
        confidence=0.99,
        learning_rate=0.05,
        references=mnist_sample(train=True),
    )


@contextmanager
def parameters_require(task: Task, gradients: bool) -> Iterator[None]:
    parameters = [*task.classifier.parameters(), *task.generator.parameters()]
    before = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(gradients)
        yield
    finally:
        for parameter, value in zip(parameters, before):
            parameter.requires_grad_(value)


TASKS = {"mnist": mnist_task}
