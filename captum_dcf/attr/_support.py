r"""The support floor of a call, in the units of the generator."""

from __future__ import annotations

import math

from captum_dcf.search import Coordinates
from captum_dcf.search.support import Measured, Support

__all__ = ["support_of"]


def support_of(coordinates: Coordinates, percentile: float, is_asked: bool) -> tuple[Measured, float]:
    r"""What the plausibility of an image is to these coordinates, and the least that a counterfactual may have.

    Args:
        coordinates: A generator.
        percentile: The share of its training images, in per cent, that may be more plausible at most; 0 for no floor.
        is_asked: Whether the caller named it: what cannot be done is then an error.

    Raises:
        ValueError: A floor was asked for, and the generator does not know its support.
    """
    support: Support | None = getattr(coordinates, "support", None)
    if support is not None:
        return support.of, support.floor(percentile) if percentile > 0 else -math.inf
    if is_asked and percentile > 0:
        raise ValueError(
            f"min_percentile={percentile:g} needs a generator that knows its support, and {type(coordinates).__name__} "
            "does not: set generator.support = measure_support(generator, training_images), or min_percentile=0"
        )
    return "log_prob" if getattr(coordinates, "has_density", False) else "latent_length", -math.inf
