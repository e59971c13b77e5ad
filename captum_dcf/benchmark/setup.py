r"""What the methods and metrics of a plan are made from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from captum_dcf.benchmark.weights import Weights
from captum_dcf.generators import Generator

__all__ = ["Setup", "check_known"]


@dataclass(frozen=True)
class Setup:
    r"""What the methods and metrics of a plan are made from.

    Attributes:
        model: The explained model.
        generators: Generators by name.
        confidences: Λ of the counterfactual methods; ``[None]`` where a value is to be reached.
        weights: Other models by name.
        references: Gives real images and their labels, on the device of the plan.
    """

    model: nn.Module
    generators: Mapping[str, Generator]
    confidences: Sequence[float | None]
    weights: Weights
    references: Callable[[], tuple[Tensor, Tensor]]
    _fitted: dict[str, Any] = field(default_factory=dict)

    def estimator(self, name: str, fit: Callable[[Tensor, Tensor], Any]) -> Any:
        r"""An estimator that ``fit`` makes of the references, once."""
        if name not in self._fitted:
            images, labels = self.references()
            self._fitted[name] = fit(images.cpu(), labels.cpu())
        return self._fitted[name]


def check_known(what: str, received: Iterable[str], known: Collection[str]) -> None:
    r"""Refuses names that are not known.

    Raises:
        ValueError: There is one.
    """
    unknown = [name for name in received if name not in known]
    if unknown:
        accepted = ", ".join(known) if known else "none"
        raise ValueError(f"unknown {what}: {', '.join(map(repr, unknown))}; known are {accepted}")
