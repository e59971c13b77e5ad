r"""The paper's tables for MNIST, made again: IM1, distances, oracles and neighbours, beside the published figures.

Dombrowski et al., "Diffeomorphic Counterfactuals with Generative Models", IEEE TPAMI 46(5), 2024, section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from captum_dcf import metrics, zoo
from captum_dcf.attr import AdversarialExample, DiffeomorphicCounterfactual
from captum_dcf.benchmark.paper import (
    DEFAULT,
    IM1,
    IN_Z,
    NEIGHBORS,
    NETWORK,
    ORIGINALS,
    PAPER,
    PIXELS,
    PUBLISHED,
    SVM,
    Figure,
    write_tables,
)
from captum_dcf.benchmark.summary import statistics
from captum_dcf.data import mnist, mnist_sample
from captum_dcf.generators import Generator
from captum_dcf.search import Adam, Counterfactual
from captum_dcf.training.oracle import fit_svm_oracle

__all__ = ["reproduce_mnist"]


@dataclass(frozen=True)
class _Judges:
    """What the measures need besides the images."""

    generator: Generator
    autoencoders: dict[int, torch.nn.Module]
    svm: object
    network: torch.nn.Module
    references: Tensor
    reference_labels: Tensor
    source_class: Tensor


def reproduce_mnist(
    out: Path,
    root: Path | None = None,
    source: int = 4,
    target: int = 9,
    limit: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> str:
    r"""Runs the paper's comparison on MNIST and writes ``mnist-S-to-T.md`` and ``.csv`` into ``out``.

    Searched are all images of the class ``source`` in MNIST's test set, or without ``root`` the bundled hundred. The
    oracle is fitted and neighbours are looked for among training images: the whole training set, or the bundled 2,000.

    Args:
        out: Folder to write to.
        root: A torchvision root with MNIST.
        source: Class of the images that are searched.
        target: Class to reach.
        limit: Search only so many images, for a trial.
        say: Is told what is being done.

    Returns:
        The table in Markdown.

    Raises:
        FileNotFoundError: There is no MNIST in ``root``.
        ValueError: ``source`` is ``target``.
    """
    if source == target:
        raise ValueError(f"source and target must be two classes, received {source} twice")
    images, labels = mnist_sample() if root is None else mnist(root, train=False)
    references, reference_labels = mnist_sample(train=True) if root is None else mnist(root, train=True)
    inputs = images[labels == source][:limit]
    say(f"fitting the oracle on {len(references)} training images")
    judges = _Judges(
        generator=zoo.load("mnist-glow"),
        autoencoders={digit: zoo.load(f"mnist-ae-{digit}") for digit in (source, target)},
        svm=fit_svm_oracle(references, reference_labels),
        network=zoo.load("mnist-oracle"),
        references=references,
        reference_labels=reference_labels,
        source_class=inputs,
    )
    published = PUBLISHED if (source, target) == (4, 9) else {}
    figures = _figures(ORIGINALS, _measures(inputs, inputs, source, target, judges), published)
    for name, method in _methods(judges.generator).items():
        say(f"searching {len(inputs)} images: {name}")
        result = method.counterfactual(inputs, target, internal_batch_size=256)
        figures += _figures(name, _search_measures(result), published)
        found = result.reached
        if found.any():
            measures = _measures(inputs[found], result.counterfactuals[found], source, target, judges)
            figures += _figures(name, measures, published)
    title = f"MNIST {source} → {target}, {len(inputs)} test images, Λ = 0.99"
    return write_tables(figures, title, out, f"mnist-{source}-to-{target}")


def _methods(generator: Generator) -> dict[str, AdversarialExample | DiffeomorphicCounterfactual]:
    classifier = zoo.load("mnist-cnn")
    return {
        PIXELS: AdversarialExample(classifier, generator),
        PAPER: DiffeomorphicCounterfactual(classifier, generator, step_rule=Adam(5e-2), softening=0),
        DEFAULT: DiffeomorphicCounterfactual(classifier, generator),
    }


def _search_measures(result: Counterfactual) -> dict[str, Tensor]:
    return {"found": result.reached.float(), "steps": result.steps.float()}


@torch.no_grad()
def _measures(inputs: Tensor, images: Tensor, source: int, target: int, judges: _Judges) -> dict[str, Tensor]:
    """Of the counterfactuals that were found, or of the originals themselves."""
    encode = judges.generator.encode
    latents, class_latents = encode(images), encode(judges.source_class)
    return {
        IM1: metrics.im1(judges.autoencoders, images, target, source),
        SVM: metrics.oracle_agreement(judges.svm, images, target).float(),
        NETWORK: metrics.oracle_agreement(judges.network, images, target).float(),
        NEIGHBORS: metrics.neighbor_agreement(images, target, judges.references, judges.reference_labels, k=10),
        "L2 in X to source": metrics.l2_input(inputs, images),
        "L2 in X to source class": torch.cdist(images.flatten(1), judges.source_class.flatten(1)).mean(1),
        IN_Z: (latents - encode(inputs)).norm(dim=1),
        "L2 in Z to source class": torch.cdist(latents, class_latents).mean(1),
        "log-likelihood": metrics.log_likelihood(judges.generator, images),
    }


def _figures(method: str, measures: dict[str, Tensor], published: dict[tuple[str, str], str]) -> list[Figure]:
    return [
        Figure(name, method, statistics(values.cpu().numpy()), published.get((name, method), ""))
        for name, values in measures.items()
    ]
