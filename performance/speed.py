r"""How fast counterfactuals are found, and what each part of the speed is owed to.

    python performance/speed.py --device cpu --images 256 --repetitions 5 --json speed.json

Three sides, measured in one process and in turns, so that a busy machine slows all of them:

- the paper's loop (``paper.py``): one image at a time, Adam, all parameters requiring gradients;
- ours, as ``DiffeomorphicCounterfactual`` is by default, at several batch sizes;
- the floor: the decodes, classifications and gradients of that search, at the same batch sizes round by round, with
  nothing around them. What ours takes above it is the cost of the engine.

The factors between the paper's loop and ours are measured one by one: a step rule that needs fewer steps is not an
engine that takes them faster.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import paper
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_dcf import Adam, Counterfactual, DiffeomorphicCounterfactual, Generator, StepRule, zoo
from captum_dcf.data import mnist_sample
from captum_dcf.metrics import neighbor_agreement, oracle_agreement

MAX_STEPS = 500


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
    r"""A generator without its frozen fast path."""

    exact = True

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator
        self.data_range = generator.data_range

    def encode(self, x: Tensor) -> Tensor:
        return self.generator.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.generator.decode(z)

    def typical_length(self, latents: Tensor) -> Tensor:
        return self.generator.typical_length(latents)


@dataclass(frozen=True)
class Run:
    r"""One measured search."""

    seconds: float
    images: int
    found: int
    decodes: int


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


def paper_run(task: Task, rows: range, frozen: bool) -> tuple[Run, list[paper.Answer]]:
    r"""The paper's loop on some images, with parameters that require gradients or not."""
    with parameters_require(task, not frozen), waited(task.images.device) as seconds:
        answers = [
            paper.search(
                task.classifier,
                task.generator,
                task.images[row : row + 1],
                task.target,
                task.confidence,
                task.learning_rate,
                MAX_STEPS,
            )
            for row in rows
        ]
    for module in (task.classifier, task.generator):
        module.zero_grad()
    run = Run(seconds(), len(rows), sum(a.found for a in answers), sum(a.decodes for a in answers))
    return run, answers


def our_run(
    task: Task, rows: range, batch: int, rule: StepRule | None = None, generator: Generator | None = None
) -> tuple[Run, Counterfactual]:
    r"""Our search on some images."""
    method = DiffeomorphicCounterfactual(task.classifier, generator or task.generator, rule)
    images = task.images[rows.start : rows.stop]
    with waited(images.device) as seconds:
        result = method.counterfactual(
            images, task.target, confidence=task.confidence, max_steps=MAX_STEPS, internal_batch_size=batch
        )
    decodes = len(images) + int(result.steps.sum())
    return Run(seconds(), len(images), int(result.reached.sum()), decodes), result


@dataclass(frozen=True)
class Floor:
    r"""Seconds of the bare work of a search."""

    start: float  # encode and classify the inputs
    rounds: float  # decode, classify, gradient, at the sizes of each round
    full: float  # the same number of decodes, all of them at the full batch
    decode: float  # one decode of the full batch without a gradient
    classify: float  # one classification of it without a gradient


def round_sizes(task: Task, rows: range, batch: int) -> list[list[int]]:
    r"""For each batch of our search, the number of images in each of its rounds."""
    sizes: list[int] = []
    parts = []
    handle = task.classifier.register_forward_pre_hook(lambda module, arguments: sizes.append(len(arguments[0])))
    try:
        for start in range(rows.start, rows.stop, batch):
            sizes.clear()
            our_run(task, range(start, min(start + batch, rows.stop)), batch)
            parts.append(sizes[1:])  # the first is the classification of the inputs
    finally:
        handle.remove()
    return parts


def floor_run(task: Task, rows: range, batch: int, parts: list[list[int]]) -> Floor:
    r"""The same work as :func:`our_run`, with nothing around it."""

    def one_round(z: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        logits = task.classifier(task.generator.decode(z).clamp(0, 1))
        return torch.autograd.grad(F.cross_entropy(logits, labels[: len(z)], reduction="sum"), z)[0]

    images = task.images[rows.start : rows.stop]
    labels = torch.full((len(images),), task.target, device=images.device)
    decodes = sum(size for sizes in parts for size in sizes)
    with parameters_require(task, False), task.generator.frozen():
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


def measure(task: Task, batches: list[int], single: int, repetitions: int) -> dict[str, Any]:
    r"""All figures of a task.

    Args:
        task: The task.
        batches: Batch sizes of ours.
        single: Images per repetition for what runs one image at a time; each repetition takes the next ones.
        repetitions: How often everything is measured, in turns.
    """
    everything = range(len(task.images))
    adam, largest = Adam(task.learning_rate), max(batches)
    runs: dict[str, list[Run]] = {}
    floors: dict[int, list[Floor]] = {}
    answers: dict[int, paper.Answer] = {}
    result = our_run(task, everything, largest)[1]  # also warms up
    for repetition in range(repetitions):
        first = repetition * single % max(1, len(task.images) - single + 1)
        few = range(first, min(first + single, len(task.images)))
        rows_of = {batch: few if batch == 1 else everything for batch in batches}
        published, found = paper_run(task, few, frozen=False)
        answers.update(zip(few, found))
        timed: dict[str, Run] = {
            "paper": published,
            "paper, parameters frozen": paper_run(task, few, frozen=True)[0],
            "engine, Adam, batch 1, plain decode": our_run(task, few, 1, adam, Plain(task.generator))[0],
            "engine, Adam, batch 1": our_run(task, few, 1, adam)[0],
            f"engine, Adam, batch {largest}": our_run(task, everything, largest, adam)[0],
        }
        for batch in batches:
            parts = round_sizes(task, rows_of[batch], batch)
            timed[f"ours, batch {batch}"] = our_run(task, rows_of[batch], batch)[0]
            floors.setdefault(batch, []).append(floor_run(task, rows_of[batch], batch, parts))
        for name, run in timed.items():
            runs.setdefault(name, []).append(run)
        print(f"repetition {repetition + 1} of {repetitions}", flush=True)
    return {
        "searches": {name: summary(values) for name, values in runs.items()},
        "ratio": spread([ratio(ours, base) for ours, base in zip(runs[f"ours, batch {largest}"], runs["paper"])]),
        "factors": factors(runs, largest),
        "floor": {batch: floor_summary(runs[f"ours, batch {batch}"], floors[batch], batch) for batch in batches},
        "quality": quality(task, answers, result),
    }


def summary(runs: list[Run]) -> dict[str, Any]:
    return {
        "found_per_second": spread([run.found / run.seconds for run in runs]),
        "decodes_per_second": spread([run.decodes / run.seconds for run in runs]),
        "steps_per_image": sum(run.decodes - run.images for run in runs) / sum(run.images for run in runs),
        "found": sum(run.found for run in runs) / sum(run.images for run in runs),
    }


def factors(runs: dict[str, list[Run]], largest: int) -> dict[str, dict[str, float]]:
    r"""What each change gives on top of those before it, in counterfactuals per second; their product is the ratio."""
    chain = {
        "parameters frozen": ("paper", "paper, parameters frozen"),
        "engine at batch 1": ("paper, parameters frozen", "engine, Adam, batch 1, plain decode"),
        "fast path": ("engine, Adam, batch 1, plain decode", "engine, Adam, batch 1"),
        f"batch {largest}": ("engine, Adam, batch 1", f"engine, Adam, batch {largest}"),
        "step rule": (f"engine, Adam, batch {largest}", f"ours, batch {largest}"),
    }
    return {
        name: spread([ratio(after, before) for before, after in zip(runs[slow], runs[fast])])
        for name, (slow, fast) in chain.items()
    }


def floor_summary(runs: list[Run], floors: list[Floor], batch: int) -> dict[str, Any]:
    whole = [floor.start + floor.rounds for floor in floors]
    return {
        "milliseconds_per_decode": spread([1000 * f.rounds / r.decodes for f, r in zip(floors, runs)]),
        "overhead": spread([run.seconds / floor - 1 for run, floor in zip(runs, whole)]),
        "share_of_encode": spread([floor.start / (floor.start + floor.rounds) for floor in floors]),
        "cost_of_shrinking_batches": spread([floor.rounds / floor.full - 1 for floor in floors]),
        "milliseconds_decode_only": spread([1000 * floor.decode / batch for floor in floors]),
        "milliseconds_classify_only": spread([1000 * floor.classify / batch for floor in floors]),
    }


def quality(task: Task, answers: dict[int, paper.Answer], result: Counterfactual) -> dict[str, dict[str, float]]:
    r"""The judge's figures of the paper's loop and of ours, on the same images: those that both of them found."""
    from sklearn.svm import SVC

    rows = torch.tensor([row for row, answer in answers.items() if answer.found and result.reached[row]])
    references, labels = task.references
    oracle = SVC().fit(references.flatten(1).numpy(), labels.numpy())
    ours = result.counterfactuals[rows.to(task.images.device)].cpu()
    theirs = torch.cat([answers[row].image for row in rows.tolist()]).cpu()
    inputs = task.images[rows.to(task.images.device)].cpu()
    distances = {
        "paper": torch.tensor([answers[row].latent_distance for row in rows.tolist()]),
        "ours": (result.end_latents - result.start_latents).norm(dim=1).cpu()[rows],
    }
    return {
        name: {
            "images": len(rows),
            "oracle_agreement": float(oracle_agreement(oracle, images, task.target).mean()),
            "neighbor_agreement": float(neighbor_agreement(images, task.target, references, labels).mean()),
            "l2_latent": float(distances[name].mean()),
            "l2_input": float((images - inputs).flatten(1).norm(dim=1).mean()),
        }
        for name, images in (("paper", theirs), ("ours", ours))
    }


def ratio(fast: Run, slow: Run) -> float:
    return (fast.found / fast.seconds) / (slow.found / slow.seconds) if slow.found else float("nan")


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "least": min(values), "greatest": max(values)}


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


@contextmanager
def waited(device: torch.device) -> Iterator[Callable[[], float]]:
    r"""Gives a function that tells, afterwards, how many seconds the block took, with the device's work done."""
    begun = ended = 0.0
    synchronize(device)
    begun = perf_counter()
    try:
        yield lambda: ended - begun
    finally:
        synchronize(device)
        ended = perf_counter()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def machine(device: torch.device) -> dict[str, Any]:
    r"""What the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
        cpu = names[0] if names else cpu
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "commit": commit.stdout.strip(),
    }


def show(figures: dict[str, Any], indent: str = "") -> None:
    for name, value in figures.items():
        if isinstance(value, dict) and set(value) == {"median", "least", "greatest"}:
            print(f"{indent}{name}: {value['median']:.4g} ({value['least']:.4g} to {value['greatest']:.4g})")
        elif isinstance(value, dict):
            print(f"{indent}{name}")
            show(value, indent + "  ")
        else:
            print(f"{indent}{name}: {value:.4g}" if isinstance(value, float) else f"{indent}{name}: {value}")


TASKS = {"mnist": mnist_task}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=sorted(TASKS), default="mnist")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--single", type=int, default=16, help="images per repetition, one at a time")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    options = parser.parse_args()
    device = torch.device(options.device)
    figures = {"machine": machine(device), "task": options.task, "images": options.images}
    figures |= measure(TASKS[options.task](device, options.images), options.batches, options.single, options.repetitions)
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
