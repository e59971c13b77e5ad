from __future__ import annotations

import mmap
import os
import weakref
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from captum_dcf.benchmark import Method, Plan, reach, run
from captum_dcf.benchmark.memory import peak_mib, reset_peak

IMAGES, SHARD = 10_000, 100
STATM = Path("/proc/self/statm")


class Streamed(Dataset):
    """Images that exist only while somebody holds them; counts those that do."""

    def __init__(self):
        self.alive = weakref.WeakSet()
        self.most_alive = 0
        self.resident = []

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        if index % SHARD == 0:
            self.resident.append(resident_mib())
        image = torch.full((1, 28, 28), index / IMAGES)
        self.alive.add(image)
        self.most_alive = max(self.most_alive, len(self.alive))
        return image, 0


def resident_mib():
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20 if STATM.exists() else 0.0


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    images = Streamed()
    plan = Plan(
        images=images,
        model=lambda x: x.flatten(1)[:, :10],
        goal=reach(9),
        methods=[Method("brighter", lambda x, t: x + 0.1)],
        metrics={"change": lambda case: case.attributions.flatten(1).norm(dim=1)},
        shard_size=SHARD,
    )
    out = run(plan, tmp_path)
    with (out / "table.csv").open(encoding="utf-8") as file:
        assert sum(1 for _ in file) == IMAGES + 1
    assert images.most_alive <= SHARD
    # All images are 30 MiB.
    early, late = max(images.resident[10:20]), max(images.resident[-10:])
    assert late - early < 8


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak can be reset on Linux only")
def test_the_peak_is_that_since_it_was_reset():
    device = torch.device("cpu")
    # Mapped for itself: the allocator may keep what a tensor leaves.
    with mmap.mmap(-1, 64 * 2**20) as block:
        block.write(bytes([1]) * len(block))
        with_block = peak_mib(device)
    reset_peak(device)
    without = peak_mib(device)
    assert with_block - without > 40
