r"""What a call warns of."""

from __future__ import annotations

import warnings
from collections import Counter

from torch import Tensor

from captum_dcf.search.result import Counterfactual, Status

__all__ = ["CounterfactualWarning", "warn_of_failures", "warn_of_range"]

REASONS = {
    Status.STEP_LIMIT: "the step limit came first",
    Status.TIME_LIMIT: "the time limit came first",
    Status.STALLED: "the gradient vanished, or there was nothing more to try",
    Status.NOT_FINITE: "images, outputs or gradients were not finite",
    Status.NOT_RECONSTRUCTED: "the model changes its mind on the reconstruction",
}
# Pixels so little beyond the range, in shares of it, are rounding.
SLACK = 1e-3


class CounterfactualWarning(UserWarning):
    r"""Some examples have no counterfactual, or inputs lie beyond the range of pixels."""


def warn_of_failures(result: Counterfactual, stacklevel: int) -> None:
    r"""One warning for all examples whose search failed."""
    failures = Counter(status for status in result.statuses() if status in REASONS)
    if failures:
        reasons = ", ".join(f"{count} {status.name} ({REASONS[status]})" for status, count in failures.items())
        message = f"no counterfactual was found for {sum(failures.values())} of {len(result)} examples: {reasons}"
        warnings.warn(message, CounterfactualWarning, stacklevel=stacklevel)


def warn_of_range(inputs: Tensor, data_range: tuple[float, float] | None, stacklevel: int) -> None:
    r"""One warning for all pixels beyond the range."""
    if data_range is None:
        return
    lowest, highest = float(inputs.detach().min()), float(inputs.detach().max())
    slack = SLACK * (data_range[1] - data_range[0])
    if lowest < data_range[0] - slack or highest > data_range[1] + slack:
        message = (
            f"inputs reach from {lowest:.3g} to {highest:.3g}, data_range is {data_range}, and pixels beyond it are "
            "put on its bounds: if that is not meant, give the generator or method the range of your pixels"
        )
        warnings.warn(message, CounterfactualWarning, stacklevel=stacklevel)
