r"""The support of the data, as far as a generator knows it: how plausible its training images are to itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

__all__ = ["Measured", "Support"]

Measured = Literal["log_prob", "latent_length"]


@dataclass(frozen=True)
class Support:
    r"""Quantiles of the plausibility of a generator's training images.

    The plausibility of an image is its log-density log q in nats where the generator has one, and otherwise minus the
    Euclidean length of its latent: higher is more plausible.

    Args:
        of: What the plausibility is, ``"log_prob"`` or ``"latent_length"``.
        quantiles: Of the training images, at even distances from the least to the greatest; 101 of them are those of
            0 %, 1 %, ..., 100 %.

    Raises:
        ValueError: ``of`` is neither of the two, or the quantiles are not two or more finite ascending numbers.

    Examples:
        >>> support = Support("log_prob", (-3.0, 1.0, 2.0))
        >>> support.percentile(torch.tensor([-9.0, 1.0, 1.5]))
        tensor([ 0., 50., 75.])
    """

    of: Measured
    quantiles: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.of not in get_args(Measured):
            raise ValueError(f"of must be one of {get_args(Measured)}, received {self.of!r}")
        object.__setattr__(self, "quantiles", _checked(self.quantiles))

    def percentile(self, plausibility: Tensor) -> Tensor:
        r"""The share of training images, in per cent, that are less plausible than each of these, (N,) in [0, 100].

        0 means that all of them are more plausible. NaN has no percentile, and gives NaN.
        """
        known = plausibility.new_tensor(self.quantiles)
        above = torch.searchsorted(known, plausibility.contiguous(), right=True).clamp(1, len(known) - 1)
        low, high = known[above - 1], known[above]
        within = torch.where(high > low, (plausibility - low) / (high - low), (plausibility >= high).to(known))
        share = 100 * (above - 1 + within.clamp(0, 1)) / (len(known) - 1)
        return torch.where(plausibility.isnan(), plausibility, share)

    def floor(self, percentile: float) -> float:
        r"""The plausibility that so many per cent of the training images fall below; the inverse of the above."""
        place = percentile / 100 * (len(self.quantiles) - 1)
        below = min(int(place), len(self.quantiles) - 2)
        low, high = self.quantiles[below : below + 2]
        return low + (place - below) * (high - low)

    def as_dict(self) -> dict[str, Any]:
        r"""As JSON holds it, for the card of the weights; ``Support(**as_dict)`` is the same again."""
        return {"of": self.of, "quantiles": [round(value, 3) for value in self.quantiles]}


def _checked(quantiles: Sequence[float]) -> tuple[float, ...]:
    values = torch.tensor([float(value) for value in quantiles], dtype=torch.float64)
    if len(values) < 2 or not values.isfinite().all() or (values.diff() < 0).any():
        raise ValueError(f"quantiles must be two or more finite ascending numbers, received {tuple(quantiles)!r:.80}")
    return tuple(values.tolist())
