r"""internal_batch_size="auto": where memory runs out fewer are tried at a time, and no result changes."""

from __future__ import annotations

import pytest
import torch
from plane import Counting, at, run, two_logits
from torch import Tensor

from captum_dcf.search import Evaluation, Move, Problem, ReachClass, Status, UnitGradient
from captum_dcf.search.memory import is_out_of_memory
from captum_dcf.search.searcher import State
from captum_dcf.search.shells import Shells

ERRORS = {
    "cuda": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu on Windows": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: not enough memory: you tried to allocate"
    ),
    "cpu on Linux": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
    "Python": MemoryError("C43"),
}
each_error = pytest.mark.parametrize("error", ERRORS.values(), ids=list(ERRORS))
START = torch.linspace(-3.0, 0.4, 40).unsqueeze(1).expand(40, 2)


class Narrow:
    r"""A function of a batch that runs out of memory above a number of examples."""

    def __init__(self, most: int, error: BaseException, function=two_logits) -> None:
        self.most, self.error, self.function = most, error, function
        self.sizes: list[int] = []

    def __call__(self, points: Tensor, *others: Tensor) -> Tensor:
        self.sizes.append(len(points))
        if len(points) > self.most:
            raise self.error
        return self.function(points, *others)

    @property
    def failed(self) -> list[int]:
        return [size for size in self.sizes if size > self.most]


@pytest.mark.parametrize("most", [1, 5, 20])
@each_error
def test_out_of_memory_halves_the_window_and_changes_no_result(most: int, error: BaseException):
    expected = run(START)
    narrow = Narrow(most, error)
    result = run(START, predict=narrow, internal_batch_size="auto")
    assert expected.reached.all()
    assert torch.equal(result.status, expected.status)
    assert torch.equal(result.steps, expected.steps)
    torch.testing.assert_close(result.counterfactuals, expected.counterfactuals)
    # From 40 down to one it can fail six times, and never again at a size that failed.
    assert len(narrow.failed) <= 6
    assert len(set(narrow.failed)) == len(narrow.failed)
    # What fits is used.
    assert max(size for size in narrow.sizes if size <= most) > most / 2


@each_error
@pytest.mark.parametrize("window", [None, 4, "auto"])
def test_an_error_that_no_window_avoids_arrives_as_it_is(error: BaseException, window: int | str | None):
    with pytest.raises(type(error)) as caught:
        run(START, predict=Narrow(0, error), internal_batch_size=window)
    assert caught.value is error


@pytest.mark.parametrize("error", [KeyError("no such layer"), ZeroDivisionError()])
def test_other_errors_are_not_tried_again(error: Exception):
    narrow = Narrow(0, error)
    with pytest.raises(type(error)):
        run(START, predict=narrow, internal_batch_size="auto")
    assert narrow.sizes == [40]


def test_a_window_of_a_given_size_is_not_made_smaller():
    narrow = Narrow(5, ERRORS["cuda"])
    with pytest.raises(torch.cuda.OutOfMemoryError):
        run(START, predict=narrow, internal_batch_size=8)
    assert narrow.sizes == [8]


class Hungry(UnitGradient):
    r"""A rule that runs out of memory above a number of examples: when the search has begun."""

    def __init__(self, most: int) -> None:
        super().__init__(0.5)
        object.__setattr__(self, "sizes", [])
        object.__setattr__(self, "most", most)

    def step(self, z: Tensor, gradient: Tensor, scale: Tensor, state: State) -> tuple[Tensor, State]:
        self.sizes.append(len(z))
        if len(z) > self.most:
            raise ERRORS["cuda"]
        return super().step(z, gradient, scale, state)


@pytest.mark.parametrize("most", [1, 5, 20, 39])
def test_memory_that_runs_out_in_a_step_is_met_in_the_same_way(most: int):
    expected, rule, ended = run(START, keep_path=True), Hungry(most), []
    result = run(START, rule=rule, internal_batch_size="auto", keep_path=True, on_end=ended.append)
    assert torch.equal(result.status, expected.status)
    assert torch.equal(result.steps, expected.steps)
    assert torch.equal(result.frame_rows, expected.frame_rows)
    torch.testing.assert_close(result.frames, expected.frames)
    assert ended == sorted(ended)
    assert ended[-1] == 40
    failed = [size for size in rule.sizes if size > most]
    assert len(set(failed)) == len(failed)
    assert len(failed) <= 7


def test_memory_may_run_out_in_the_samples_that_a_step_draws():
    shells = Shells(width=0.3, outermost=3.0, samples=10, shells=20, hybrid=False)
    goal = {"goal": ReachClass(1, 0.9), "searcher": shells}
    start = START[:12].clone()
    expected, narrow = run(start, **goal), Narrow(45, ERRORS["mps"])
    result = run(start, predict=narrow, internal_batch_size="auto", **goal)
    assert torch.equal(result.steps, expected.steps)
    torch.testing.assert_close(result.counterfactuals, expected.counterfactuals)
    assert narrow.failed


class OnceTooSmall:
    r"""Runs out of memory once, when some of the first batch have ended."""

    failed = False

    def __call__(self, points: Tensor, rows: Tensor) -> Tensor:
        if len(points) < 16 and not self.failed:
            self.failed = True
            raise ERRORS["cuda"]
        return two_logits(points, rows)


def test_a_round_that_is_tried_again_counts_once():
    decode, model, ended = Counting(lambda z: z), OnceTooSmall(), []
    start = START[-16:].clone()
    expected = run(start)
    result = run(start, decode, model, internal_batch_size="auto", on_end=ended.append)
    assert model.failed
    assert torch.equal(result.steps, expected.steps)
    assert ended == sorted(ended)
    assert ended[-1] == 16


def test_time_may_run_out_while_some_are_put_aside(monkeypatch: pytest.MonkeyPatch):
    from types import SimpleNamespace

    from captum_dcf.search import engine

    ticks = iter(range(100))
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    result = run(at(-9.0, -9.0, -9.0, -9.0), rule=Hungry(2), max_seconds=4.5, internal_batch_size="auto")
    assert result.statuses() == [Status.TIME_LIMIT] * 4
    assert result.steps.tolist() == [3, 3, 0, 0]


@pytest.mark.parametrize("most", [1, 3])
def test_a_halved_step_may_be_asked_for_twice_with_the_same_state(most: int):
    asked: list[tuple[int, int]] = []

    class Asked(Hungry):
        def step(self, z: Tensor, gradient: Tensor, scale: Tensor, state: State) -> tuple[Tensor, State]:
            asked.append((len(z), len(state["length"])))
            return super().step(z, gradient, scale, state)

    run(START[:7].clone(), rule=Asked(most), internal_batch_size="auto")
    assert all(points == states for points, states in asked)


def test_what_says_that_memory_ran_out():
    assert all(is_out_of_memory(error) for error in ERRORS.values())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


class Moves(Shells):
    def step(self, problem: Problem, at: Evaluation, state: State) -> Move:
        raise ERRORS["cuda"]


def test_one_example_that_does_not_fit_says_so():
    with pytest.raises(torch.cuda.OutOfMemoryError):
        run(at(-1.0, -2.0), searcher=Moves(0.1, 1.0, 2, 2), internal_batch_size="auto")
