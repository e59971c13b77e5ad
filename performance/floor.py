r"""The bare work of a search: the same decodes, classifications and gradients, with nothing around them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from measuring import waited
from tasks import Task, parameters_require
from torch import Tensor, nn
from torch.nn import functional as F

from captum_dcf import DiffeomorphicCounterfactual

__all__ = ["Floor", "measure", "round_sizes"]


@dataclass(frozen=True)
class Floor:
    r"""Seconds of the bare work of a search."""

    start: float  # encode and classify the inputs
    rounds: float  # decode, classify, gradient, at the sizes of each round
    full: float  # the same number of decodes, all of them at the full batch
    decode: float  # one decode of the full batch without a gradient
    classify: float  # one classification of it without a gradient


def round_sizes(task: Task, rows: range, batch: int, max_steps: int) -> tuple[list[int], list[int]]:
    r"""The number of images each time that some are taken up by our search, and in each of its rounds."""
    method = DiffeomorphicCounterfactual(task.classifier, task.generator)
    starts: list[int] = []
    rounds: list[int] = []

    def record(module: nn.Module, arguments: tuple[Tensor]) -> None:
        # Inputs are classified without a gradient, candidates with one.
        (rounds if arguments[0].requires_grad else starts).append(len(arguments[0]))

    handle = task.classifier.register_forward_pre_hook(record)
    try:
        images = task.images[rows.start : rows.stop]
        method.counterfactual(
            images, task.target, confidence=task.confidence, max_steps=max_steps, internal_batch_size=batch
        )
    finally:
        handle.remove()
    return starts, rounds


def measure(task: Task, rows: range, batch: int, sizes: tuple[list[int], list[int]]) -> Floor:
    r"""Seconds of the bare work of a search that took up, and judged, so many images at a time."""

    def one_round(z: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        logits = task.classifier(task.generator.decode(z).clamp(0, 1))
        return torch.autograd.grad(F.cross_entropy(logits, labels[: len(z)], reduction="sum"), z)[0]

    starts, rounds_of = sizes
    images = task.images[rows.start : rows.stop]
    labels = torch.full((len(images),), task.target, device=images.device)
    decodes = sum(rounds_of)
    with parameters_require(task, False), task.generator.constant():
        with waited(images.device) as start, torch.no_grad():
            parts = images.split(starts)
            latents = torch.cat([task.generator.encode(part) for part in parts])
            for part in parts:
                task.classifier(part)
        whole = latents[:batch]
        with waited(images.device) as rounds:
            for size in rounds_of:
                one_round(latents[:size])
        repeats = max(1, min(20, decodes // len(whole)))
        with waited(images.device) as full:
            for _ in range(repeats):
                one_round(whole)
        with torch.no_grad():
            with waited(images.device) as decode:
                decoded = task.generator.decode(whole)
            with waited(images.device) as classify:
                task.classifier(decoded)
    at_full = full() * decodes / (repeats * len(whole))
    return Floor(start(), rounds(), at_full, decode(), classify())
