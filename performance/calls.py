r"""How many of the package's functions one round of the default search calls, and how often it moves between files.

    python performance/calls.py

What is counted belongs to a round: the difference of two searches of 20 and 10 steps, on a model of one layer.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

import captum_dcf
from captum_dcf import DiffeomorphicCounterfactual, Generator, UnitGradient

PACKAGE = str(Path(captum_dcf.__file__).parent)
INLINE = ("<genexpr>", "<listcomp>", "<dictcomp>")


class Rows(Generator):
    r"""Pixels less one half."""

    exact = True
    data_range = (0.0, 1.0)

    def encode(self, x: Tensor) -> Tensor:
        return x.flatten(1) - 0.5

    def decode(self, z: Tensor) -> Tensor:
        return (z + 0.5).view(-1, 1, 4, 4)


def counted(steps: int) -> Counter[str]:
    r"""Calls, and moves between files, of a search of so many steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    # Steps so short that nothing is reached.
    method = DiffeomorphicCounterfactual(model, Rows(), step_rule=UnitGradient(1e-4))
    images = torch.rand(4, 1, 4, 4)
    counts: Counter[str] = Counter()
    last = ""

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal last
        place = frame.f_code.co_filename
        if event == "call" and place.startswith(PACKAGE) and frame.f_code.co_name not in INLINE:
            counts["calls"] += 1
            counts["moves between files"] += place != last
            last = place

    sys.setprofile(watch)
    try:
        method.counterfactual(images, target=1, max_steps=steps)
    finally:
        sys.setprofile(None)
    return counts


def main() -> None:
    r"""Prints both counts of one round."""
    few, many = counted(10), counted(20)
    for name in many:
        print(f"{name}: {(many[name] - few[name]) / 10:g} a round")


if __name__ == "__main__":
    main()
