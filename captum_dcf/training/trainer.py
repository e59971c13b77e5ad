r"""One training with Lightning: the trial that measures its speed, and the rounds themselves."""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import Dataset

from captum_dcf import registry
from captum_dcf.generators import Generator
from captum_dcf.models.registry import architecture
from captum_dcf.training.checkpoint import rounds_done
from captum_dcf.training.objectives import Objective
from captum_dcf.training.order import Order, step_loader, steps_per_epoch, test_loader
from captum_dcf.training.recipes import AUGMENTATIONS, OBJECTIVES, Recipe
from captum_dcf.training.schedule import Schedule, Speed
from captum_dcf.training.watch import Watch
from captum_dcf.zoo.card import Card
from captum_dcf.zoo.store import build, searchable

__all__ = ["Hardware", "Job", "measure_speed", "optimise"]

# Steps of a trial before its clock starts, such as the one that compiles kernels.
WARM_UP = 2
SHOWN = 32
_TALKATIVE = ("utilities.rank_zero", "trainer.connectors.checkpoint_connector")


@dataclass(frozen=True)
class Hardware:
    r"""What Lightning's trainer trains on; each is passed on as it is.

    Attributes:
        accelerator: ``"auto"``, ``"cpu"``, ``"gpu"``, ``"mps"``.
        devices: How many of them, their numbers, or ``"auto"`` for all; on CPUs the number of processes.
        nodes: Number of machines.
        precision: Such as ``"32-true"``, ``"16-mixed"`` or ``"bf16-mixed"``.
        strategy: How several devices share the work, such as ``"ddp"``.
    """

    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    nodes: int = 1
    precision: str = "32-true"
    strategy: str = "auto"


@dataclass(frozen=True)
class Job:
    r"""What is trained, on what, and where its files go.

    Attributes:
        recipe: The model and its training.
        settings: What a checkpoint must agree in, with ``"seed"``.
        train_set: Training images and labels.
        test_set: Held-out images and labels.
        path: The checkpoint, ``OUT/NAME.ckpt``.
        hardware: What it is trained on.
        class_names: Those of label 0, 1, ...; none where the data have none.
    """

    recipe: Recipe
    settings: dict[str, Any]
    train_set: Dataset[Any]
    test_set: Dataset[Any]
    path: Path
    hardware: Hardware
    class_names: tuple[str, ...] = ()

    @property
    def seed(self) -> int:
        r"""For weights, order of images and noise."""
        return int(self.settings["seed"])

    @property
    def count(self) -> int:
        r"""Training images."""
        return len(cast(Sized, self.train_set))

    @property
    def steps_per_epoch(self) -> int:
        r"""Steps in which all training images are seen, but those that fill no batch."""
        return steps_per_epoch(self.count, self.recipe.batch_size)


def measure_speed(job: Job, steps: int, limit: float) -> Speed:
    r"""Trains a few steps of a model that is thrown away, and looks at the held-out images once.

    Args:
        job: The training.
        steps: Steps to take at most, five or more.
        limit: Seconds after which the trial ends early.
    """
    schedule = Schedule(1, steps, 1, 0.0)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=job.path.parent) as folder, _apart(job.seed):
        objective = new_objective(job)
        watch = Watch(Path(folder) / job.path.name, schedule, job.seed, steps, 0.0, _pictures(job), trial=limit)
        _fit(job, objective, schedule, watch, 0, None)
        ended = time.perf_counter()
    times = watch.ends
    step = (times[-1] - times[WARM_UP - 1]) / (len(times) - WARM_UP)
    return Speed(step, ended - times[-1])


def optimise(
    job: Job, schedule: Schedule, asked: dict[str, float], checkpoint: dict[str, Any] | None, seconds: float
) -> tuple[Objective, dict[str, float], float]:
    r"""Trains by a schedule, from a checkpoint on where there is one; the caller's random state stays as it is.

    Args:
        job: The training.
        schedule: Its rounds.
        asked: The epochs or minutes that the schedule was made for, kept in the checkpoint.
        checkpoint: What ``job.path`` holds, if anything.
        seconds: Time that was spent before the first step.

    Returns:
        The objective with its trained model, its metrics on all held-out images, and the seconds of all runs.
    """
    with _apart(job.seed):
        objective = new_objective(job)
        objective.settings = {**job.settings, "schedule": asdict(schedule), "asked": asked}
        if checkpoint is not None:
            _check_weights(objective, checkpoint, job.path)
        watch = Watch(job.path, schedule, job.seed, job.steps_per_epoch, seconds, _pictures(job))
        trainer = _fit(job, objective, schedule, watch, rounds_done(checkpoint), checkpoint)
        whole = test_loader(job.test_set, _test_batch(job), job.seed, whole=True)
        [metrics] = trainer.validate(objective, whole, verbose=False)
    return objective, dict(metrics), watch.seconds


def new_objective(job: Job) -> Objective:
    r"""The objective of a job with an untrained model.

    Raises:
        ValueError: The recipe names an architecture, objective or augmentation that is not there.
    """
    recipe = job.recipe
    kind = registry.imported(registry.find(OBJECTIVES, recipe.objective, "objective"))
    augment = [registry.imported(registry.find(AUGMENTATIONS, name, "augmentation")) for name in recipe.augment]
    model = build(Card(recipe.architecture, recipe.architecture, recipe.arguments, ""))
    objective: Objective = kind(model, recipe.learning_rate, recipe.weight_decay, augment)
    return objective


def _fit(
    job: Job, objective: Objective, schedule: Schedule, watch: Watch, begin: int, checkpoint: Mapping[str, Any] | None
) -> lightning.Trainer:
    order = Order(job.count, job.recipe.batch_size, schedule.steps, job.seed, begin)
    held_out = test_loader(job.test_set, _test_batch(job), job.seed, whole=False)
    trainer = _trainer(job, schedule, watch)
    place = None if checkpoint is None else job.path
    trainer.fit(objective, step_loader(job.train_set, order), held_out, ckpt_path=place)
    if trainer.interrupted:
        # Older releases of Lightning return from Ctrl-C as if the training had ended.
        raise KeyboardInterrupt
    return trainer


def _trainer(job: Job, schedule: Schedule, watch: Watch) -> lightning.Trainer:
    hardware = job.hardware
    return lightning.Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        precision=cast(Any, hardware.precision),
        strategy=hardware.strategy,
        max_epochs=schedule.rounds,
        check_val_every_n_epoch=schedule.watch_every,
        gradient_clip_val=job.recipe.clip,
        callbacks=[watch],
        enable_checkpointing=False,
        enable_progress_bar=False,
        logger=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        # ActNorm takes its scale from the first batch it sees, which has to be one of the training set.
        num_sanity_val_steps=0,
    )


def _test_batch(job: Job) -> int:
    return min(500, 4 * job.recipe.batch_size)


def _pictures(job: Job) -> tuple[Callable[[nn.Module], Generator], Tensor] | None:
    """How a generator of images is shown, and the held-out images it is shown by."""
    if architecture(job.recipe.architecture).role != "generator":
        return None
    count = min(SHOWN, len(cast(Sized, job.test_set)))
    images = torch.stack([job.test_set[number][0] for number in range(count)])
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        return None
    return partial(_as_generator, job.recipe.architecture), images


def _as_generator(name: str, model: nn.Module) -> Generator:
    return cast(Generator, searchable(model, name))


def _check_weights(objective: Objective, checkpoint: dict[str, Any], path: Path) -> None:
    try:
        objective.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{path} holds the weights of another model") from error


@contextmanager
def _apart(seed: int) -> Iterator[None]:
    """A context with random numbers of its own, and without what Lightning says of itself and its makers' offers."""
    loggers = [logging.getLogger(f"lightning.pytorch.{part}") for part in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with isolate_rng(), warnings.catch_warnings():
            # Of its own settings, which a user has no hand in.
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", module="torch.optim.lr_scheduler", message=".*epoch parameter.*")
            torch.manual_seed(seed)
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
