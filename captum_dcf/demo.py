r"""What the command ``demo`` does: search, a table, and a picture."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from captum_dcf import zoo
from captum_dcf.attr import AdversarialExample, CounterfactualAttribution, DiffeomorphicCounterfactual
from captum_dcf.data import mnist_sample
from captum_dcf.generators import Generator
from captum_dcf.outputs import new_files
from captum_dcf.search import Adam, Counterfactual
from captum_dcf.visualization import counterfactual_figure

__all__ = ["Comparison", "compare", "run_demo", "table"]

PIXELS, PAPER, DEFAULT = "in X: Adam 1e-2", "in Z: Adam 0.05 (paper)", "in Z: unit gradient (default)"
TARGET = 9
SHOWN = 4
# The demo is to take less than a minute. Steps in pixels are cheap; with the paper's Adam three digits in ten need more
# than these, see `captum-dcf reproduce mnist`.
MAX_STEPS = {PIXELS: 1000, PAPER: 100, DEFAULT: 300}


@dataclass(frozen=True)
class Comparison:
    r"""One method's result and its figures, means over the examples.

    Attributes:
        result: The result.
        seconds: Time of the whole batch.
        l2_latent: ‖g⁻¹(x') - g⁻¹(x)‖, also for counterfactuals found in pixels.
        log_likelihood: log p(x') in nats.
    """

    result: Counterfactual
    seconds: float
    l2_latent: float
    log_likelihood: float

    def cells(self) -> list[str]:
        r"""The figures as a row of the table."""
        result = self.result
        return [
            f"{int(result.reached.sum())}/{len(result)}",
            f"{result.steps.float().mean():.1f}",
            f"{result.end_scores.mean():.3f}",
            f"{result.attributions.flatten(1).norm(dim=1).mean():.2f}",
            f"{self.l2_latent:.2f}",
            f"{self.log_likelihood:.0f}",
            f"{self.seconds:.1f} s",
        ]


def run_demo(
    out: Path, per_class: int = 100, say: Callable[[str], None] = lambda line: None, overwrite: bool = False
) -> str:
    r"""Fours and sevens that become nines, in pixels and latents: writes a table and a picture, returns the table.

    Args:
        out: Folder to write to; made if there is none.
        per_class: Number of fours, and of sevens.
        say: Is told of each search when it begins and ends.
        overwrite: Whether the table and the picture of an earlier call may be replaced.

    Raises:
        FileExistsError: There is a table or a picture in ``out`` already.
    """
    with new_files(out, ["table.md", "counterfactuals.png"], overwrite=overwrite) as folder:
        all_images, all_labels = mnist_sample()
        chosen = torch.cat([(all_labels == digit).nonzero().squeeze(1)[:per_class] for digit in (4, 7)])
        images, labels = all_images[chosen], all_labels[chosen]
        generator, classifier = zoo.load("mnist-glow"), zoo.load("mnist-cnn")
        compared = compare(classifier, generator, images, TARGET, say)
        text = table(compared)
        (folder / "table.md").write_text(text + "\n", encoding="utf-8")
        shown = min(SHOWN, per_class)
        rows = [*range(shown), *range(per_class, per_class + shown)]
        results = {name: part.result for name, part in compared.items()}
        figure = counterfactual_figure(results, rows, [f"{labels[row]} → {TARGET}" for row in rows])
        figure.savefig(folder / "counterfactuals.png", dpi=150)
    return text


def compare(
    classifier: nn.Module,
    generator: Generator,
    images: Tensor,
    target: int,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Comparison]:
    r"""The same search in pixels, in latents with the paper's Adam, and in latents with the default step rule."""
    methods: dict[str, CounterfactualAttribution] = {
        PIXELS: AdversarialExample(classifier, generator, step_rule=Adam(1e-2)),
        PAPER: DiffeomorphicCounterfactual(classifier, generator, step_rule=Adam(5e-2), softening=0),
        DEFAULT: DiffeomorphicCounterfactual(classifier, generator),
    }
    compared = {}
    for name, method in methods.items():
        say(f"searching {len(images)} images {name}, at most {MAX_STEPS[name]} steps")
        compared[name] = _measure(method, generator, images, target, MAX_STEPS[name])
        say(f"  took {compared[name].seconds:.1f} s")
    return compared


def table(compared: dict[str, Comparison]) -> str:
    r"""The figures of a comparison in Markdown."""
    header = ["search", "found", "steps", "confidence", "L2 in X", "L2 in Z", "log p(x')", "time"]
    rows = [header, ["---"] * len(header), *([name, *part.cells()] for name, part in compared.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows)


def _measure(
    method: CounterfactualAttribution, generator: Generator, images: Tensor, target: int, max_steps: int
) -> Comparison:
    started = time.perf_counter()
    result = method.counterfactual(images, target, max_steps=max_steps)
    seconds = time.perf_counter() - started
    with torch.no_grad():
        change = generator.encode(result.counterfactuals) - generator.encode(images)
        log_likelihood = generator.log_prob(result.counterfactuals)
    return Comparison(result, seconds, float(change.norm(dim=1).mean()), float(log_likelihood.mean()))
