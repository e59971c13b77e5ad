r"""How long a training takes: its rounds and steps, planned once from the speed of a few steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Schedule", "Speed", "plan_epochs", "plan_minutes", "stretched"]

# In a training that is given minutes, looking at held-out images takes at most this share of the time, and happens at
# most so often.
WATCHING = 0.1
WATCHES = 100


@dataclass(frozen=True)
class Speed:
    r"""What was measured before a training.

    Attributes:
        step: Seconds per step.
        pause: Seconds for the held-out images, the pictures and a checkpoint.
    """

    step: float
    pause: float


@dataclass(frozen=True)
class Schedule:
    r"""A training in rounds of equally many steps; a checkpoint is written after each.

    Attributes:
        rounds: Rounds of the whole training.
        steps: Steps per round.
        watch_every: Rounds after which held-out images are looked at.
        seconds: How long the whole training takes at the measured speed.
    """

    rounds: int
    steps: int
    watch_every: int
    seconds: float

    @property
    def total_steps(self) -> int:
        r"""Steps of the whole training."""
        return self.rounds * self.steps


def plan_epochs(epochs: int, steps_per_epoch: int, speed: Speed, checkpoint_seconds: float) -> Schedule:
    r"""A training of so many epochs, with a checkpoint after each of them or ``checkpoint_seconds``, if that is less.

    Long epochs are divided evenly, which can add a step to each part.
    """
    parts, steps = _divided(steps_per_epoch, speed, checkpoint_seconds)
    seconds = epochs * (parts * steps * speed.step + speed.pause)
    return Schedule(epochs * parts, steps, parts, seconds)


def plan_minutes(seconds: float, steps_per_epoch: int, speed: Speed, checkpoint_seconds: float) -> Schedule:
    r"""A training that takes ``seconds``, whole epochs or not, and at least one step.

    Held-out images are looked at about once in an epoch, or less often where that would take more than a tenth of the
    time.
    """
    steps = max(steps_per_epoch, math.ceil(speed.pause * (1 / WATCHING - 1) / speed.step))
    watches = min(WATCHES, max(1, int(seconds / (steps * speed.step + speed.pause))))
    # The time that whole epochs leave over is shared out among them.
    steps = max(1, int((seconds / watches - speed.pause) / speed.step))
    parts, steps = _divided(steps, speed, checkpoint_seconds)
    return Schedule(watches * parts, steps, parts, watches * (parts * steps * speed.step + speed.pause))


def _divided(steps: int, speed: Speed, seconds: float) -> tuple[int, int]:
    parts = min(steps, max(1, math.ceil(steps * speed.step / seconds)))
    return parts, math.ceil(steps / parts)


def stretched(
    schedule: Schedule, before: Mapping[str, float], asked: Mapping[str, float], steps_per_epoch: int
) -> Schedule:
    r"""A schedule of rounds of the same length that does what is asked for instead of what it was made for.

    Args:
        schedule: The schedule as it is.
        before: What it was made for, ``{"epochs": ...}`` or ``{"minutes": ...}``.
        asked: What is asked for, likewise.
        steps_per_epoch: Steps of an epoch.
    """
    if "epochs" in asked:
        watches = math.ceil(asked["epochs"] * steps_per_epoch / (schedule.steps * schedule.watch_every))
    else:
        seconds = 60 * before["minutes"] if "minutes" in before else schedule.seconds
        watches = int(60 * asked["minutes"] / max(seconds, 1e-9) * schedule.rounds / schedule.watch_every)
    rounds = max(1, watches) * schedule.watch_every
    return Schedule(rounds, schedule.steps, schedule.watch_every, schedule.seconds * rounds / schedule.rounds)
