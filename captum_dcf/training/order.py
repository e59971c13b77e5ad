r"""In which order images are trained on: a function of the seed alone, so that a training can go on at any step."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sized
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, TensorDataset, default_collate

from captum_dcf.data.images import MOST_BYTES, Images
from captum_dcf.data.sources import read_all

__all__ = ["Order", "in_memory", "mixed_seed", "step_loader", "steps_per_epoch", "test_loader"]

# Bytes of images that are read once and kept.
MEMORY = 2 * 2**30
# Held-out images that are looked at while the training goes on.
WATCHED = 2000


class Order(Sampler[list[int]]):
    r"""The images of each step of a round, a list of numbers each: one shuffled epoch after the other, without a gap.

    Step k of a training has the same images wherever the rounds begin, and however often it was interrupted. An epoch
    leaves out the last images that do not fill a batch. Of several processes, each gets its share of every batch.

    Args:
        count: Images of the training set.
        batch_size: Images per step, of all processes together.
        steps: Steps per round.
        seed: For the order.
        round: The first round.

    Raises:
        ValueError: A batch has fewer images than there are processes.
    """

    def __init__(self, count: int, batch_size: int, steps: int, seed: int, round: int = 0) -> None:
        self.count = count
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.round = round

    def set_epoch(self, epoch: int) -> None:
        r"""Sets the round; Lightning, to which a round is an epoch, calls it."""
        self.round = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        rank, world = _place()
        size = min(self.batch_size, self.count)
        if size < world:
            raise ValueError(f"a batch of {size} images cannot be shared by {world} devices: ask for fewer of them")
        per_epoch = steps_per_epoch(self.count, self.batch_size)
        shuffled, of_epoch = torch.empty(0), -1
        for step in range(self.round * self.steps, (self.round + 1) * self.steps):
            epoch, begin = step // per_epoch, step % per_epoch * size
            if epoch != of_epoch:
                generator = torch.Generator().manual_seed(mixed_seed(self.seed, 0, epoch))
                shuffled, of_epoch = torch.randperm(self.count, generator=generator), epoch
            yield shuffled[begin : begin + size][rank::world].tolist()


def steps_per_epoch(count: int, batch_size: int) -> int:
    r"""Whole batches of an epoch, at least one: a last batch of a few images would weigh as much as a whole one."""
    return max(1, count // batch_size)


def mixed_seed(*numbers: int) -> int:
    r"""One seed of several numbers, such as a seed and a step; other numbers give unrelated ones."""
    sequence = np.random.SeedSequence([number % 2**64 for number in numbers])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


class _Batches(Dataset[Any]):
    """A data set whose index is the list of numbers of a batch."""

    def __init__(self, dataset: Dataset[tuple[Tensor, Any]]) -> None:
        self.dataset = dataset

    def __getitem__(self, numbers: list[int]) -> Any:
        return default_collate([self.dataset[number] for number in numbers])


def step_loader(dataset: Dataset[tuple[Tensor, Any]], order: Order) -> DataLoader[Any]:
    r"""The batches of a round, images and labels, in an order."""
    return DataLoader(_Batches(dataset), sampler=order, batch_size=None, **_workers(dataset))


def test_loader(dataset: Dataset[tuple[Tensor, Any]], batch_size: int, seed: int, whole: bool) -> DataLoader[Any]:
    r"""Batches of the held-out images, all of them or, where they are many, some chosen by chance."""
    count = len(cast(Sized, dataset))
    if not whole and count > WATCHED:
        chosen = torch.randperm(count, generator=torch.Generator().manual_seed(mixed_seed(seed)))[:WATCHED]
        dataset = Subset(dataset, chosen.tolist())
    return DataLoader(dataset, batch_size=batch_size, **_workers(dataset))


test_loader.__test__ = False  # type: ignore[attr-defined]


def in_memory(dataset: Dataset[tuple[Tensor, Any]]) -> Dataset[tuple[Tensor, Any]]:
    r"""A data set that was read once, where its images fit into memory; otherwise as it is.

    Raises:
        ValueError: Some images cannot be read; each is named.
    """
    count = len(cast(Sized, dataset))
    if _is_read(dataset):
        for number in range(count if isinstance(_base(dataset), Images) else 0):
            dataset[number]
        return dataset
    if count * dataset[0][0].nbytes > MEMORY:
        return dataset
    return cast("Dataset[tuple[Tensor, Any]]", TensorDataset(*read_all(dataset)))


def _is_read(dataset: Any) -> bool:
    """Whether its images are in memory, or stay there once they were asked for."""
    base = _base(dataset)
    if isinstance(base, Images):
        return len(base) * math.prod(base.image_shape) <= MOST_BYTES
    return isinstance(base, TensorDataset)


def _base(dataset: Any) -> Any:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def _workers(dataset: Any) -> dict[str, Any]:
    count = 0 if _is_read(dataset) else min(8, os.cpu_count() or 1)
    return {"num_workers": count, "persistent_workers": count > 0}


def _place() -> tuple[int, int]:
    """This process among those that train together, and how many they are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
