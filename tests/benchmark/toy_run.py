r"""A benchmark of toys as a program, so that processes can be started and killed.

``toy_run.py OUT LOG [VICTIM]``: each image that is explained is written to LOG, one line each. The process that comes
to the image VICTIM kills itself.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from captum_dcf.benchmark import Method, Plan, reach, run
from captum_dcf.search import Goal

IMAGES = 22


def plan(log: Path, victim: int | None = None) -> Plan:
    source = torch.Generator().manual_seed(3)
    images = torch.rand(IMAGES, 1, 4, 4, generator=source)
    # So that a method knows which images it has.
    images[:, 0, 0, 0] = torch.arange(IMAGES) / 1000

    def jitter(images: Tensor, goal: Goal) -> Tensor:
        numbers = (1000 * images[:, 0, 0, 0]).round().long().tolist()
        if victim in numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        with log.open("a", encoding="utf-8") as file:
            file.write("".join(f"{number}\n" for number in numbers))
        return images + torch.rand_like(images)

    return Plan(
        images=TensorDataset(images, torch.arange(IMAGES) % 2),
        model=lambda x: x.flatten(1)[:, :3],
        goal=reach(2),
        methods=[Method("same", lambda images, goal: images), Method("jitter", jitter, confidence=0.4)],
        metrics={"change": lambda case: case.attributions.flatten(1).norm(dim=1)},
        shard_size=4,
    )


if __name__ == "__main__":
    out, log, *victim = sys.argv[1:]
    run(plan(Path(log), *map(int, victim)), out)
