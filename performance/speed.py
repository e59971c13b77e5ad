r"""How fast counterfactuals are found, and what each part of the speed is owed to.

    python performance/speed.py --device cpu --images 256 --repetitions 5 --json speed.json

Three sides, measured in one process and in turns, so that a busy machine slows all of them:

- the paper's loop (``paper.py``): one image at a time, Adam, all parameters requiring gradients;
- ours, as ``DiffeomorphicCounterfactual`` is by default, at several batch sizes;
- the floor: the decodes, classifications and gradients of that search, at the same batch sizes round by round, with
  nothing around them. What ours takes above it is the cost of the engine.

The factors between the paper's loop and ours are measured one by one: a step rule or a loss that needs fewer steps is
not an engine that takes them faster.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import floor
import paper
import torch
from measuring import machine, show, spread, waited
from tasks import TASKS, Plain, Task, parameters_require

from captum_dcf import Adam, Counterfactual, DiffeomorphicCounterfactual
from captum_dcf.metrics import neighbor_agreement, oracle_agreement

MAX_STEPS = 500


@dataclass(frozen=True)
class Run:
    r"""One measured search."""

    seconds: float
    images: int
    found: int
    decodes: int


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


def our_run(task: Task, rows: range, batch: int, **options: Any) -> tuple[Run, Counterfactual]:
    r"""Our search on some images, with other options of ``DiffeomorphicCounterfactual`` than the default ones."""
    method = DiffeomorphicCounterfactual(**{"forward_func": task.classifier, "generator": task.generator, **options})
    images = task.images[rows.start : rows.stop]
    with waited(images.device) as seconds:
        result = method.counterfactual(
            images, task.target, confidence=task.confidence, max_steps=MAX_STEPS, internal_batch_size=batch
        )
    decodes = len(images) + int(result.steps.sum())
    return Run(seconds(), len(images), int(result.reached.sum()), decodes), result


def measure(task: Task, batches: list[int], single: int, repetitions: int) -> dict[str, Any]:
    r"""All figures of a task.

    Args:
        task: The task.
        batches: Batch sizes of ours.
        single: Images per repetition for what runs one image at a time; each repetition takes the next ones.
        repetitions: How often everything is measured, in turns.
    """
    everything = range(len(task.images))
    largest = max(batches)
    adam = {"step_rule": Adam(task.learning_rate), "softening": 0.0}
    runs: dict[str, list[Run]] = {}
    floors: dict[int, list[floor.Floor]] = {}
    answers: dict[int, paper.Answer] = {}

    def record(name: str, run: Run) -> None:
        runs.setdefault(name, []).append(run)
        say(f"  {name}: {run.seconds:.1f} s")

    say(f"{len(task.images)} images at once and {single} one at a time, {repetitions} times: warming up")
    result = our_run(task, everything, largest)[1]
    for repetition in range(repetitions):
        say(f"repetition {repetition + 1} of {repetitions}")
        first = repetition * single % max(1, len(task.images) - single + 1)
        few = range(first, min(first + single, len(task.images)))
        rows_of = {batch: few if batch == 1 else everything for batch in batches}
        published, found = paper_run(task, few, frozen=False)
        answers.update(zip(few, found))
        record("paper", published)
        record("paper, parameters frozen", paper_run(task, few, frozen=True)[0])
        plain = our_run(task, few, 1, **adam, generator=Plain(task.generator))[0]
        record("engine, Adam, batch 1, plain decode", plain)
        record("engine, Adam, batch 1", our_run(task, few, 1, **adam)[0])
        record(f"engine, Adam, batch {largest}", our_run(task, everything, largest, **adam)[0])
        record(f"engine, unit steps, batch {largest}", our_run(task, everything, largest, softening=0.0)[0])
        for batch in batches:
            sizes = floor.round_sizes(task, rows_of[batch], batch, MAX_STEPS)
            record(f"ours, batch {batch}", our_run(task, rows_of[batch], batch)[0])
            floors.setdefault(batch, []).append(floor.measure(task, rows_of[batch], batch, sizes))
    return {
        "searches": {name: summary(values) for name, values in runs.items()},
        "ratio": spread([ratio(ours, base) for ours, base in zip(runs[f"ours, batch {largest}"], runs["paper"])]),
        # Each repetition takes other images for what runs one at a time, and some are ten times harder than others.
        "ratio_of_all": ratio(together(runs[f"ours, batch {largest}"]), together(runs["paper"])),
        "factors": factors(runs, largest),
        "floor": {batch: floor_summary(runs[f"ours, batch {batch}"], floors[batch], batch) for batch in batches},
        "quality": quality(task, answers, result),
    }


def together(runs: list[Run]) -> Run:
    r"""All repetitions as one run."""
    return Run(*(sum(getattr(run, field.name) for run in runs) for field in fields(Run)))


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
        "step rule": (f"engine, Adam, batch {largest}", f"engine, unit steps, batch {largest}"),
        "softened loss": (f"engine, unit steps, batch {largest}", f"ours, batch {largest}"),
    }
    return {
        name: spread([ratio(after, before) for before, after in zip(runs[slow], runs[fast])])
        for name, (slow, fast) in chain.items()
    }


def floor_summary(runs: list[Run], floors: list[floor.Floor], batch: int) -> dict[str, Any]:
    wholes = [f.start + f.rounds for f in floors]
    return {
        "milliseconds_per_decode": spread([1000 * f.rounds / r.decodes for f, r in zip(floors, runs)]),
        "overhead": spread([run.seconds / whole - 1 for run, whole in zip(runs, wholes)]),
        "share_of_encode": spread([f.start / whole for f, whole in zip(floors, wholes)]),
        "cost_of_shrinking_batches": spread([f.rounds / f.full - 1 for f in floors]),
        "milliseconds_decode_only": spread([1000 * f.decode / batch for f in floors]),
        "milliseconds_classify_only": spread([1000 * f.classify / batch for f in floors]),
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


def say(line: str) -> None:
    print(line, flush=True)


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
    task = TASKS[options.task](device, options.images)
    figures |= measure(task, options.batches, options.single, options.repetitions)
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
