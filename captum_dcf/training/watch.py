r"""What happens beside the steps of a training: random numbers, checkpoints, a table, pictures, a bar or lines."""

from __future__ import annotations

import csv
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from tqdm import tqdm

from captum_dcf.generators import Generator
from captum_dcf.training.checkpoint import write_whole
from captum_dcf.training.objectives import Objective
from captum_dcf.training.order import mixed_seed
from captum_dcf.training.pictures import write_pictures
from captum_dcf.training.processes import of_first
from captum_dcf.training.schedule import Schedule

__all__ = ["Watch", "duration", "files_beside"]


class Watch(lightning.Callback):
    r"""Draws the random numbers of each step from the seed and the number of the step, and keeps what is found.

    A training that goes on from a checkpoint therefore draws what it would have drawn without an interruption.

    Args:
        path: The checkpoint, ``OUT/NAME.ckpt``; table and pictures are named after it.
        schedule: The rounds of the training.
        seed: For the noise of each step.
        steps_per_epoch: What an epoch is, for the table.
        seconds: Time that was spent before the first step.
        pictures: Makes a generator of the model and shows held-out images by it, see :func:`write_pictures`; None for
            what is no generator of images.
        trial: Seconds after which a trial ends, which says nothing and notes when each step ended; None for a training.

    Attributes:
        ends: When each step of a trial ended, by the clock ``time.perf_counter``.
    """

    def __init__(
        self,
        path: Path,
        schedule: Schedule,
        seed: int,
        steps_per_epoch: int,
        seconds: float = 0.0,
        pictures: tuple[Callable[[nn.Module], Generator], Tensor] | None = None,
        trial: float | None = None,
    ) -> None:
        self.path = path
        self.schedule = schedule
        self.seed = seed
        self.steps_per_epoch = steps_per_epoch
        self.pictures = pictures
        self.trial = trial
        self.ends: list[float] = []
        self.rows: list[dict[str, float]] = []
        self.seconds = seconds
        self._losses: tuple[float | Tensor, int] = (0.0, 0)
        self._bar: Any = None

    def state_dict(self) -> dict[str, Any]:
        r"""What a checkpoint holds of it."""
        total, count = self._losses
        return {"rows": self.rows, "seconds": self.seconds, "losses": [float(total), count]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        r"""Takes up what a checkpoint holds."""
        self.rows, self.seconds = list(state_dict["rows"]), self.seconds + state_dict["seconds"]
        self._losses = tuple(state_dict["losses"])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._began, self._before, self._begin = time.monotonic(), self.seconds, trainer.current_epoch
        if sys.stderr.isatty() and trainer.is_global_zero and self.trial is None:
            done = trainer.current_epoch * self.schedule.steps
            self._bar = tqdm(total=self.schedule.total_steps, initial=done, unit="step")

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # Layers that took their scale from a process's own first images take that of the first process.
        if trainer.world_size > 1 and trainer.global_step == 0:
            for tensor in cast(Objective, pl_module).model.state_dict().values():
                torch.distributed.broadcast(tensor, 0)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.current_epoch * self.schedule.steps + batch_idx
        torch.manual_seed(mixed_seed(self.seed, 1 + trainer.global_rank, step))

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        loss = trainer.callback_metrics.get("loss", torch.tensor(math.nan))
        total, count = self._losses
        self._losses = total + loss.detach(), count + 1
        if self._bar is not None:
            self._bar.update()
        if self.trial is not None:
            float(loss)  # waits for the device
            self.ends.append(time.perf_counter())
            late = self.ends[-1] - self.ends[0] > self.trial and len(self.ends) > 3
            trainer.should_stop = of_first(late)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # Metrics that draw noise draw the same each time.
        torch.manual_seed(mixed_seed(self.seed))

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        objective, done = cast(Objective, pl_module), trainer.current_epoch + 1
        step = done * self.schedule.steps
        if not all(bool(parameter.isfinite().all()) for parameter in objective.parameters()):
            raise ValueError(f"the weights are no numbers any more after step {step}: ask for a smaller learning rate")
        self.seconds = self._before + time.monotonic() - self._began
        watched = done % self.schedule.watch_every == 0
        if watched:
            self._add_row(step, trainer.callback_metrics[objective.metric_name], objective.metric_name)
        try:
            self._write(trainer, objective.model, watched)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(
                error.errno, f"step {step} could not be saved: {reason}. The last checkpoint is there to go on from"
            ) from error
        if watched and trainer.is_global_zero and self.trial is None:
            self._say(done)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _add_row(self, step: int, metric: Tensor, metric_name: str) -> None:
        total, count = self._losses
        self._losses = 0.0, 0
        self.rows.append(
            {
                "epoch": round(step / self.steps_per_epoch, 3),
                "step": step,
                "minutes": round(self.seconds / 60, 3),
                "loss": float(total) / max(1, count),
                metric_name: float(metric),
            }
        )

    def _write(self, trainer: lightning.Trainer, model: nn.Module, watched: bool) -> None:
        if trainer.is_global_zero:
            write_whole(self.path, trainer.save_checkpoint)
        else:  # all processes take part in it
            trainer.save_checkpoint(self.path)
        if not (watched and trainer.is_global_zero):
            return
        table, samples, reconstructions = files_beside(self.path)
        write_whole(table, self._write_table)
        if self.pictures is not None:
            make_generator, images = self.pictures
            was_training = model.training
            model.eval()
            device = next(model.parameters()).device
            write_pictures(make_generator(model).eval(), images.to(device), samples, reconstructions)
            model.train(was_training)

    def _write_table(self, path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(self.rows[-1]), lineterminator="\n")
            table.writeheader()
            table.writerows(self.rows)

    def _say(self, done: int) -> None:
        row = {**self.rows[-1]}
        metric_name = list(row)[-1]
        left = (self.seconds - self._before) / (done - self._begin) * (self.schedule.rounds - done)
        line = f"epoch {row['epoch']:g}: loss {row['loss']:.4g}, {metric_name} {row[metric_name]:.4g}"
        line = f"{line}, {duration(self.seconds)}, {duration(left)} left"
        if self._bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._bar.write(line, file=sys.stderr)


def files_beside(path: Path) -> tuple[Path, Path, Path]:
    r"""Table, samples and reconstructions of the training whose checkpoint is ``path``."""
    table, samples, reconstructions = (
        path.with_name(path.stem + end) for end in (".csv", "-samples.png", "-reconstructions.png")
    )
    return table, samples, reconstructions


def duration(seconds: float) -> str:
    r"""A time as it is said: seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
