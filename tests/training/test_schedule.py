r"""How long a training takes, and in which order it sees its images; nothing is trained."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from captum_dcf.training.order import Order, in_memory, mixed_seed, step_loader, test_loader
from captum_dcf.training.schedule import Schedule, Speed, plan_epochs, plan_minutes, stretched


def test_epochs_are_rounds_unless_they_are_long():
    assert plan_epochs(3, 50, Speed(1.0, 5.0), 120.0) == Schedule(3, 50, 1, 165.0)
    # 250 s an epoch are three rounds of 84 steps, two steps more than an epoch.
    assert plan_epochs(3, 250, Speed(1.0, 5.0), 120.0) == Schedule(9, 84, 3, 771.0)
    assert plan_epochs(1, 2, Speed(1000.0, 1.0), 120.0) == Schedule(2, 1, 2, 2001.0)


@pytest.mark.parametrize("steps_per_epoch", [1, 37, 900, 100_000])
@pytest.mark.parametrize("speed", [Speed(0.01, 0.5), Speed(0.2, 3.0), Speed(2.0, 20.0)])
@pytest.mark.parametrize("minutes", [3, 20, 240])
def test_minutes_are_filled_and_little_of_them_is_spent_on_watching(steps_per_epoch: int, speed: Speed, minutes: int):
    schedule = plan_minutes(60 * minutes, steps_per_epoch, speed, 120.0)
    watches = schedule.rounds / schedule.watch_every
    took = schedule.total_steps * speed.step + watches * speed.pause
    assert took == pytest.approx(60 * minutes, rel=0.05)
    assert schedule.seconds == pytest.approx(took)
    assert 1 <= watches <= 100
    assert watches == int(watches)
    assert watches * speed.pause <= 0.15 * 60 * minutes
    # A checkpoint every two minutes, or after a step that takes longer.
    assert schedule.steps * speed.step <= 120 + speed.step


def test_no_time_at_all_is_one_step():
    schedule = plan_minutes(0.0, 40, Speed(1.0, 1.0), 120.0)
    assert (schedule.total_steps, schedule.rounds) == (1, 1)


def test_a_schedule_is_stretched_in_rounds_of_the_same_length():
    schedule = Schedule(rounds=6, steps=10, watch_every=2, seconds=60.0)
    twice = Schedule(12, 10, 2, 120.0)
    assert stretched(schedule, {"minutes": 1}, {"minutes": 2}, steps_per_epoch=15) == twice
    assert stretched(schedule, {"epochs": 4}, {"minutes": 2}, steps_per_epoch=15) == twice
    assert stretched(schedule, {"epochs": 4}, {"epochs": 8}, steps_per_epoch=15) == twice


def first(order: Order, rounds: int) -> list[list[int]]:
    found = []
    for number in range(rounds):
        order.set_epoch(number)
        found += list(order)
    return found


def test_an_order_does_not_depend_on_its_rounds():
    whole = first(Order(22, 5, 12, seed=3), 1)
    assert first(Order(22, 5, 3, seed=3), 4) == first(Order(22, 5, 1, seed=3), 12) == whole
    assert list(Order(22, 5, 3, seed=3, round=2)) == whole[6:9]
    assert first(Order(22, 5, 12, seed=4), 1) != whole
    for epoch in range(3):
        seen = list(itertools.chain(*whole[4 * epoch : 4 * epoch + 4]))
        # Two of 22 images fill no batch.
        assert len(set(seen)) == 20
    assert whole[:4] != whole[4:8]


def test_fewer_images_than_a_batch_are_one_batch():
    assert [sorted(numbers) for numbers in Order(3, 8, 2, seed=0)] == [[0, 1, 2]] * 2


def test_processes_share_each_batch(monkeypatch: pytest.MonkeyPatch):
    whole = list(Order(22, 5, 4, seed=3))
    shares = []
    for rank in range(2):
        monkeypatch.setattr("captum_dcf.training.order._place", lambda rank=rank: (rank, 2))
        shares.append(list(Order(22, 5, 4, seed=3)))
    assert [sorted(one + two) for one, two in zip(*shares)] == [sorted(numbers) for numbers in whole]
    monkeypatch.setattr("captum_dcf.training.order._place", lambda: (0, 6))
    with pytest.raises(ValueError, match=r"5 images .* 6 devices"):
        list(Order(22, 5, 4, seed=3))


def test_seeds_are_unrelated():
    numbers = [(seed, part, step) for seed in (-1, 0, 1, 2**63) for part in (0, 1) for step in range(50)]
    assert len({mixed_seed(*one) for one in numbers}) == len(numbers)
    assert all(0 <= mixed_seed(*one) < 2**63 for one in numbers)


class Counted(Dataset):
    r"""Counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.reads += 1
        return torch.full((1, 2, 2), float(index)), index


def test_images_that_fit_into_memory_are_read_once(monkeypatch: pytest.MonkeyPatch):
    dataset = Counted()
    kept = in_memory(dataset)
    before = dataset.reads
    for _ in range(3):
        for images, labels in step_loader(kept, Order(6, 2, 3, seed=0)):
            assert images.shape == (2, 1, 2, 2)
            assert torch.equal(images[:, 0, 0, 0].long(), labels)
    assert dataset.reads == before
    monkeypatch.setattr("captum_dcf.training.order.MEMORY", 6 * 16 - 1)
    assert in_memory(dataset) is dataset


def test_of_many_held_out_images_some_are_watched(monkeypatch: pytest.MonkeyPatch):
    dataset = TensorDataset(torch.arange(100.0), torch.arange(100))
    monkeypatch.setattr("captum_dcf.training.order.WATCHED", 30)
    chosen = [torch.cat([x for x, _ in test_loader(dataset, 8, seed, whole=False)]) for seed in (1, 1, 2)]
    assert len(chosen[0].unique()) == 30
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])
    # They are ordered by class, often, and some of each are to be among them.
    assert chosen[0].max() > 60
    assert sum(len(x) for x, _ in test_loader(dataset, 8, 1, whole=True)) == 100
