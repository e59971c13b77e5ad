r"""The bare work of a search: the same decodes, classifications and gradients, with nothing around them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from measuring import waited
from tasks import Task, parameters_require
from torch import Tensor
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


def round_sizes(task: Task, rows: range, batch: int, max_steps: int) -> list[list[int]]:
    r"""For each batch of our search, the number of images in each of its rounds."""
    method = DiffeomorphicCounterfactual(task.classifier, task.generator)
    sizes: list[int] = []
    parts = []
    handle = task.classifier.register_forward_pre_hook(lambda module, arguments: sizes.append(len(arguments[0])))
    try:
        for start in range(rows.start, rows.stop, batch):
            sizes.clear()
            images = task.images[start : min(start + batch, rows.stop)]
            method.counterfactual(images, task.target, confidence=task.confidence, max_steps=max_steps)
            parts.append(sizes[1:])  # the first is the classification of the inputs
    finally:
        handle.remove()
    return parts


def measure(task: Task, rows: range, batch: int, parts: list[list[int]]) -> Floor:
    r"""Seconds of the bare work of a search whose rounds had these sizes."""

    def one_round(z: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        logits = task.classifier(task.generator.decode(z).clamp(0, 1))
        return torch.autograd.grad(F.cross_entropy(logits, labels[: len(z)], reduction="sum"), z)[0]

    images = task.images[rows.start : rows.stop]
    labels = torch.full((len(images),), task.target, device=images.device)
    decodes = sum(size for sizes in parts for size in sizes)
    with parameters_require(task, False), task.generator.constant():
        with waited(images.device) as start, torch.no_grad():
            latents = [task.generator.encode(part) for part in images.split(batch)]
            for part in images.split(batch):
                task.classifier(part)
        with waited(images.device) as rounds:
            for z, sizes in zip(latents, parts):
                for size in sizes:
                    one_round(z[:size])
        repeats = max(1, min(20, decodes // len(latents[0])))
        with waited(images.device) as full:
            for _ in range(repeats):
                one_round(latents[0])
        with torch.no_grad():
            with waited(images.device) as decode:
                decoded = task.generator.decode(latents[0])
            with waited(images.device) as classify:
                task.classifier(decoded)
    at_full = full() * decodes / (repeats * len(latents[0]))
    return Floor(start(), rounds(), at_full, decode(), classify())
