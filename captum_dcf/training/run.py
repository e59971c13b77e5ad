r"""Training by a recipe: data, a schedule from the speed of a few steps, the training, weights and card."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from captum_dcf import registry
from captum_dcf.data.sources import SOURCES, of_classes, open_source
from captum_dcf.outputs import refuse_existing
from captum_dcf.training.checkpoint import read_checkpoint, rounds_done
from captum_dcf.training.finish import write_model
from captum_dcf.training.order import in_memory
from captum_dcf.training.processes import is_first, of_first
from captum_dcf.training.recipes import RECIPES, Recipe
from captum_dcf.training.schedule import Schedule, Speed, plan_epochs, plan_minutes, stretched
from captum_dcf.training.trainer import Hardware, Job, measure_speed, optimise
from captum_dcf.training.watch import duration, files_beside
from captum_dcf.zoo.card import Card, weights_path
from captum_dcf.zoo.store import check_absent

__all__ = ["Hardware", "fit", "train"]


def train(
    name: str,
    root: str | Path | None,
    out: str | Path,
    epochs: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    **options: Any,
) -> Card:
    r"""Trains a model by a named recipe, see :func:`fit`, which also says what is written and raised.

    Args:
        name: A recipe, one of ``captum_dcf.training.recipes.RECIPES``; also the name of the files.
        root: Folder of the data set; for MNIST a torchvision root, or None for the bundled samples.
        out: Folder to write to.
        epochs: Passes over the training set; the recipe's by default.
        seed: For the first weights, the order of the images and the noise.
        limit: Use only so many images of each set, for a trial.
        options: Further ones of :func:`fit`.

    Raises:
        ValueError: Unknown recipe.
    """
    recipe = registry.find(RECIPES, name, "recipe")
    return fit(recipe, root, out, name, epochs=epochs, seed=seed, limit=limit, **options)


def fit(
    recipe: Recipe,
    root: str | Path | None,
    out: str | Path,
    name: str,
    minutes: float | None = None,
    epochs: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    credit: str | None = None,
    command: str | None = None,
    hardware: Hardware | None = None,
    checkpoint_seconds: float = 120.0,
) -> Card:
    r"""Trains a model and writes ``NAME.safetensors`` and its card ``NAME.json`` into ``out``.

    The speed is measured on a few steps of a model that is thrown away. The schedule that follows from it, with its
    cosine of learning rates, is fixed then and kept in the checkpoint. A checkpoint, ``NAME.ckpt``, is written after
    each epoch, or after ``checkpoint_seconds`` where that is less. An equal call goes on from it, and gives, on one
    machine and as many threads, the weights of a training without interruption. With more epochs or minutes the
    schedule is stretched: rates follow the longer cosine from there on.

    ``NAME.csv`` gets a row after each epoch: epoch, step, minutes of all runs, mean loss and the metric on up to 2,000
    held-out images. Of generators, samples and reconstructions are drawn into ``NAME-samples.png`` and
    ``NAME-reconstructions.png``. The caller's random state stays as it is.

    Args:
        recipe: The model and its training.
        root: Where the data are; what it may be is said by the source that the recipe names.
        out: Folder to write to.
        name: Name of the model and of its files.
        minutes: How long the training is to take in all, reading and measuring included.
        epochs: Passes over the training set instead; those of the recipe by default.
        seed: For the first weights, the order of the images and the noise.
        limit: Use only so many images of each set, for a trial.
        credit: What the data are, by whom and under which licence, for the card; that of the source by default.
        command: How the training is asked for on the command line, for the card; ``NAME`` by default.
        hardware: Devices, precision and strategy; all there is and 32 bits by default.
        checkpoint_seconds: Most seconds between two checkpoints.

    Returns:
        The card that was written.

    Raises:
        ValueError: Both ``minutes`` and ``epochs``; data that do not fit the recipe; the checkpoint in ``out`` is none,
            is that of another training (seed, limit, number of images or recipe), or has as many steps already; the
            weights are no longer finite.
        FileExistsError: There is a model of that name in ``out`` and no checkpoint beside it.
        OSError: ``out`` cannot be written to. The last checkpoint stays.
        FileNotFoundError: The data set is not there.
    """
    began = time.monotonic()
    asked = _asked(recipe, minutes, epochs)
    sets = [_dataset(recipe, root, split, limit) for split in ("train", "test")]
    settings = {"seed": seed, "limit": limit, "images": len(sets[0]), **asdict(recipe)}
    del settings["epochs"]
    path = Path(out) / f"{name}.ckpt"
    checkpoint = read_checkpoint(path, settings) if path.exists() else None
    _check_writable(path, checkpoint is None)
    train_set, test_set = (in_memory(part) for part in sets)
    job = Job(recipe, settings, train_set, test_set, path, hardware or Hardware(), _class_names(recipe, sets[0]))
    if checkpoint is None:
        schedule = of_first(_planned(job, asked, began, checkpoint_seconds))
        before = time.monotonic() - began
    else:
        schedule, before = _gone_on(job, asked, checkpoint), 0.0
    _announce(job, schedule, checkpoint)
    objective, metrics, seconds = optimise(job, schedule, asked, checkpoint, before)
    said = {
        "command": _command(command or name, seed, limit, asked),
        "epochs": round(schedule.total_steps / job.steps_per_epoch, 3),
        "epochs_before_last_run": round(rounds_done(checkpoint) * schedule.steps / job.steps_per_epoch, 3),
        "steps": schedule.total_steps,
        "seconds": round(seconds, 1),
    }
    return write_model(job, objective, metrics, said, credit, overwrite=checkpoint is not None)


def _asked(recipe: Recipe, minutes: float | None, epochs: int | None) -> dict[str, float]:
    if minutes is not None and epochs is not None:
        raise ValueError(f"ask for minutes or for epochs, received {minutes} minutes and {epochs} epochs")
    if minutes is not None:
        if not 0 < minutes < float("inf"):
            raise ValueError(f"minutes must be positive, received {minutes!r}")
        return {"minutes": minutes}
    # The recipe checks them.
    return {"epochs": recipe.epochs if epochs is None else replace(recipe, epochs=epochs).epochs}


def _dataset(recipe: Recipe, root: str | Path | None, split: str, limit: int | None) -> Subset[tuple[Tensor, Any]]:
    dataset: Dataset[Any] = open_source(recipe.source, root, split, recipe.image_shape, **recipe.source_arguments)
    if recipe.classes is not None:
        dataset = of_classes(dataset, recipe.classes)
    there = len(dataset)  # type: ignore[arg-type]
    count = there if limit is None else min(there, limit)
    if count < 1:
        raise ValueError(f"no images to {split} with: there are {there}, and limit is {limit!r}")
    return Subset(dataset, range(count))


def _class_names(recipe: Recipe, dataset: Any) -> tuple[str, ...]:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None) or SOURCES[recipe.source].classes or ()
    # A folder of folders has the label of each name.
    return tuple(sorted(names, key=names.__getitem__) if isinstance(names, Mapping) else names)


def _check_writable(path: Path, is_new: bool) -> None:
    """Refuses, before hours are spent, what would be refused after."""
    name, out = path.stem, path.parent
    if is_new:
        check_absent(name, out)
        refuse_existing(files_beside(path))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out):
        pass


def _planned(job: Job, asked: Mapping[str, float], began: float, checkpoint_seconds: float) -> Schedule:
    if "epochs" in asked:
        epochs = int(asked["epochs"])
        # A short training is not preceded by a long trial.
        steps = min(20, max(5, epochs * job.steps_per_epoch // 10))
        speed = measure_speed(job, steps, limit=10.0)
        return plan_epochs(epochs, job.steps_per_epoch, speed, checkpoint_seconds)
    seconds = 60 * asked["minutes"]
    speed = measure_speed(job, 200, limit=min(30.0, seconds / 20))
    left = seconds - (time.monotonic() - began) - _closing(job, speed)
    return plan_minutes(max(0.0, left), job.steps_per_epoch, speed, checkpoint_seconds)


def _closing(job: Job, speed: Speed) -> float:
    """Seconds from the last step to the card: the held-out images again, and the support of as many training images."""
    return 2 * speed.pause


def _gone_on(job: Job, asked: Mapping[str, float], checkpoint: Mapping[str, Any]) -> Schedule:
    """The schedule of a checkpoint, stretched to what is asked for where that is something else."""
    began, done = checkpoint["hyper_parameters"], rounds_done({**checkpoint})
    # Checkpoints of earlier releases have none: their rounds are epochs.
    schedule = Schedule(**began.get("schedule", asdict(Schedule(done, job.steps_per_epoch, 1, 0.0))))
    before = began.get("asked", {"epochs": done})
    if before != asked:
        schedule = stretched(schedule, before, asked, job.steps_per_epoch)
    # A training that was ended between its last round and its weights still has them to write.
    if done > schedule.rounds or (done == schedule.rounds and weights_path(job.path.stem, job.path.parent).exists()):
        epochs = done * schedule.steps / job.steps_per_epoch
        [(unit, value)] = asked.items()
        raise ValueError(
            f"{job.path} has {epochs:g} epochs already: ask for more than these {value:g} {unit}, or for another folder"
        )
    return schedule


def _announce(job: Job, schedule: Schedule, checkpoint: Mapping[str, Any] | None) -> None:
    """One line that says what is trained on what, and how long it will take."""
    if not is_first():
        return
    shape = "×".join(str(size) for size in job.train_set[0][0].shape)
    device = "cpu" if job.hardware.accelerator == "cpu" or not torch.cuda.is_available() else "gpu"
    threads = f" ({torch.get_num_threads()} threads)" if device == "cpu" else ""
    epochs = schedule.total_steps / job.steps_per_epoch
    held_out = len(job.test_set)  # type: ignore[arg-type]
    begun = "" if checkpoint is None else f", from step {rounds_done({**checkpoint}) * schedule.steps:,} on"
    print(
        f"{job.path.stem}: {job.recipe.architecture} on {job.count:,} images of {shape}, {held_out:,} held out; "
        f"{schedule.total_steps:,} steps in {epochs:.3g} epochs{begun}, about {duration(schedule.seconds)} in all "
        f"on {device}{threads}",
        file=sys.stderr,
        flush=True,
    )


def _command(what: str, seed: int, limit: int | None, asked: Mapping[str, float]) -> str:
    limited = "" if limit is None else f" --limit {limit}"
    [(unit, value)] = asked.items()
    return f"captum-dcf train {what} --seed {seed} --{unit} {value:g}{limited}"
