r"""Metrics of all counterfactuals of a method, such as the Fréchet distance: their images are kept until then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from captum_dcf.benchmark.case import Case, NotApplicable
from captum_dcf.benchmark.goals import with_confidence
from captum_dcf.benchmark.plan import Method, Plan

__all__ = ["KeptImages"]


class KeptImages:
    r"""Inputs, labels and counterfactuals of one shard after the other, in files beside the shards.

    Images that reach the goal already are left out.

    Args:
        folder: The folder of the run.
        plan: What is run; without metrics of sets nothing is kept.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder = folder / "shards"
        self._plan = plan
        self._metrics = plan.metrics_of("set")
        self._kept: dict[str, list[Tensor]] = {}

    def add(self, method: Method, numbers: list[int], case: Case) -> None:
        r"""Keeps the images of some examples of the present shard."""
        if not self._metrics:
            return
        place = self._plan.methods.index(method)
        try:
            images = case.counterfactuals
        except NotApplicable:
            return
        sought = ~case.already_there()
        for name, part in (("inputs", case.inputs), ("labels", case.labels), ("counterfactuals", images)):
            self._kept.setdefault(f"{place}.{name}", []).append(part[sought].detach().cpu())

    def write(self, number: int) -> None:
        r"""Writes the present shard and begins another."""
        if self._metrics:
            path = self._file(number)
            unfinished = path.with_name(path.name + ".tmp")
            save_file({name: torch.cat(parts).contiguous() for name, parts in self._kept.items()}, unfinished)
            unfinished.replace(path)
        self._kept = {}

    def has(self, number: int) -> bool:
        r"""Whether the images of a shard are there, or not needed."""
        return not self._metrics or self._file(number).is_file()

    def measure(self, shards: Iterable[int]) -> dict[tuple[Any, ...], dict[str, float]]:
        r"""By the key of each method its metrics of the whole set, one method in memory at a time."""
        if not self._metrics:
            return {}
        numbers = list(shards)
        return {method.key: self._of_method(place, method, numbers) for place, method in enumerate(self._plan.methods)}

    def _of_method(self, place: int, method: Method, shards: list[int]) -> dict[str, float]:
        files = [load_file(self._file(number)) for number in shards]
        parts = [_of(place, file) for file in files if f"{place}.inputs" in file]
        if not parts:
            return {}
        inputs, labels, images = (torch.cat(column) for column in zip(*parts))
        if not len(inputs):
            return {}

        def goal_of(labels: Tensor) -> Any:
            return with_confidence(self._plan.goal(labels), method.confidence)

        case = Case(inputs, labels, goal_of, images, method.explain, self._plan.model)
        values = {}
        for name, metric in self._metrics.items():
            try:
                values[name] = float(metric(case.copy()))
            except NotApplicable:
                continue
        return values

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:08d}.safetensors"


def _of(place: int, file: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    return file[f"{place}.inputs"], file[f"{place}.labels"], file[f"{place}.counterfactuals"]
