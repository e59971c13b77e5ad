r"""The rows of one shard: what every method says about its images, and every metric about that."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_dcf.attr import CounterfactualWarning
from captum_dcf.benchmark.case import Case, Metric, NotApplicable, SaliencyMap
from captum_dcf.benchmark.examples import Batch, read
from captum_dcf.benchmark.goals import with_confidence
from captum_dcf.benchmark.memory import peak_mib, reset_peak
from captum_dcf.benchmark.plan import ENDED, ERROR, Method, Plan
from captum_dcf.benchmark.processes import local_device
from captum_dcf.context import preserve_random_state
from captum_dcf.search import Counterfactual, Goal, Status

__all__ = ["Row", "shard_rows"]

Row = dict[str, Any]
# Called with what a method made of some images, given by their numbers.
Keep = Callable[[Method, list[int], Case], None]


def shard_rows(plan: Plan, shard: int, numbers: range, keep: Keep = lambda method, numbers, case: None) -> list[Row]:
    r"""The rows of one shard, by method and image.

    Args:
        plan: What is run.
        shard: Number of the shard.
        numbers: Its images.
        keep: Called with what each method made of the images, once for each batch of them.

    Raises:
        ValueError: A method or a metric fails on all images of the first shard, or gives another shape than it must.
        TypeError: The data set gives something else than floating point images with a label each.
        ImportError: What a method or a metric needs is not installed.
    """
    device = torch.device(local_device(plan.device))
    batches, broken = read(plan.images, numbers, device)
    rows = []
    for method in plan.methods:
        of_method = [_error_row(plan, method, number, None, f"the image {what}") for number, what in broken.items()]
        failures = []
        for batch in batches:
            for part in _explained(plan, method, batch, plan.seed + shard, keep):
                if isinstance(part, _Failure):
                    failures.append(part)
                    of_method.append(part.row(plan, method))
                else:
                    of_method += part
        # Of the first shard alone: it tells a method that is set up wrongly from images that are hard.
        fails_on_all = failures and len(failures) == len(numbers) - len(broken)
        if shard == 0 and fails_on_all and (len(failures) > 1 or plan.length == 1):
            raise ValueError(f"{failures[0].text(method)}, and so it is with all {len(failures)} images of its shard")
        rows += sorted(of_method, key=lambda row: row["image"])
    return rows


class _WrongShape(ValueError):
    """What a method or a metric gave is of another shape or kind than it must be: no fault of an image."""


@dataclass(frozen=True)
class _Failure:
    """One image that a method or a metric raised an error for."""

    batch: Batch
    error: Exception

    def row(self, plan: Plan, method: Method) -> Row:
        return _error_row(plan, method, self.batch.numbers[0], self.batch.labels[0].item(), self._reason())

    def text(self, method: Method) -> str:
        return f"the method {method.name!r} cannot do image {self.batch.numbers[0]}: {self._reason()}"

    def _reason(self) -> str:
        return f"{type(self.error).__name__}: {self.error}"


def _explained(plan: Plan, method: Method, batch: Batch, seed: int, keep: Keep) -> Iterator[list[Row] | _Failure]:
    """The rows of a batch; if it fails, those of its halves, so that one image cannot take the others with it."""
    try:
        yield _rows(plan, method, batch, seed, keep)
        return
    except (ImportError, _WrongShape):
        raise
    # Whatever a method or a metric raises for one image, the others are to be done.
    except Exception as error:
        if len(batch.numbers) == 1:
            yield _Failure(batch, error)
            return
    for half in batch.halves():
        yield from _explained(plan, method, half, seed, keep)


def _rows(plan: Plan, method: Method, batch: Batch, seed: int, keep: Keep) -> list[Row]:
    device = batch.inputs.device

    def goal_of(labels: Tensor) -> Goal:
        return with_confidence(plan.goal(labels.clone()), method.confidence)

    with _seeded(seed, device), warnings.catch_warnings():
        # The table says it.
        warnings.simplefilter("ignore", CounterfactualWarning)
        # Captum says these of what it does itself.
        warnings.filterwarnings("ignore", "Input Tensor 0 did not already require gradients")
        warnings.filterwarnings("ignore", "Setting backward hooks on ReLU")
        reset_peak(device)
        started = perf_counter()
        outcome = method.explain(batch.inputs.clone(), goal_of(batch.labels))
        _wait_for(device)
        seconds, memory = perf_counter() - started, peak_mib(device)
        case = Case(batch.inputs, batch.labels, goal_of, outcome, method.explain, plan.model)
        _check_outcome(method.name, case)
        columns = {
            "target": [plan.named(target) for target in case.targets()],
            **_ended(case),
            "seconds": [seconds / len(batch.numbers)] * len(batch.numbers),
            "memory_mib": [memory] * len(batch.numbers),
            **{name: _measured(name, metric, case) for name, metric in plan.metrics_of("example").items()},
        }
    keep(method, batch.numbers, case)
    return [
        {
            **_identity(method, number, plan.named(label)),
            **{name: values[place] for name, values in columns.items()},
            ERROR: None,
        }
        for place, (number, label) in enumerate(zip(batch.numbers, batch.labels.tolist()))
    ]


def _ended(case: Case) -> dict[str, list[Any]]:
    outcome = case.outcome
    nothing = [None] * len(case.inputs)
    columns: dict[str, list[Any]] = dict.fromkeys(ENDED, nothing)
    if isinstance(outcome, SaliencyMap):
        return columns
    there = case.already_there()
    columns["already_there"] = there.tolist()
    columns["found"] = (case.reached() & ~there).tolist()
    if isinstance(outcome, Counterfactual):
        columns["status"] = [Status(value).name for value in outcome.status.tolist()]
        columns["steps"] = outcome.steps.tolist()
        columns["start_score"] = outcome.start_scores.tolist()
        columns["end_score"] = outcome.end_scores.tolist()
    return columns


def _measured(name: str, metric: Metric, case: Case) -> list[float | None]:
    try:
        values = torch.as_tensor(metric(case.copy()))
    except NotApplicable:
        return [None] * len(case.inputs)
    except ImportError:
        raise
    except Exception as error:
        raise RuntimeError(f"the metric {name!r}: {type(error).__name__}: {error}") from error
    if values.shape != (len(case.inputs),):
        wanted, received = (len(case.inputs),), tuple(values.shape)
        raise _WrongShape(f"the metric {name!r} must give one value per example, {wanted}, received {received}")
    # MPS has no float64.
    return values.detach().cpu().double().tolist()


def _check_outcome(name: str, case: Case) -> None:
    if not isinstance(case.outcome, (Counterfactual, SaliencyMap, Tensor)):
        accepted, kind = "a Counterfactual, a tensor or a SaliencyMap", type(case.outcome).__name__
        raise _WrongShape(f"the method {name!r} must give {accepted}, received {kind}")
    given = case.attributions if isinstance(case.outcome, SaliencyMap) else case.counterfactuals
    wanted, received = tuple(case.inputs.shape), tuple(given.shape)
    if received != wanted:
        raise _WrongShape(f"the method {name!r} must keep the shape {wanted} of its images, received {received}")


def _identity(method: Method, number: int, label: float | str | None) -> Row:
    return {
        "image": number,
        "label": label,
        "target": None,
        "method": method.name,
        "generator": method.generator,
        "confidence": method.confidence,
    }


def _error_row(plan: Plan, method: Method, number: int, label: float | None, error: str) -> Row:
    row: Row = {**dict.fromkeys(plan.columns), **_identity(method, number, plan.named(label))}
    return {**row, ERROR: " ".join(error.split())}


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """A block whose random numbers are those of the shard, whichever process does it; the caller's are put back."""
    # Captum's GradientShap draws from numpy.
    numpy_state = np.random.get_state()
    try:
        with preserve_random_state(device):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        np.random.set_state(numpy_state)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
