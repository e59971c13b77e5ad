r"""Sizes of images that can be halved often enough for a network."""

from __future__ import annotations

import math

__all__ = ["check_halves", "halvings"]

# Pixels of the shorter side where it is halved for the last time. Coarser, nothing is left of the image; finer, the
# coarsest layers see too little of it at a time.
_LEAST, _MOST = 4, 14


def halvings(height: int, width: int) -> int:
    r"""How often an image can be halved, while both sides are even and the shorter one stays at 4 pixels or more.

    Raises:
        ValueError: A side has less than 8 pixels, or the shorter side cannot be brought to 14 or less.

    Examples:
        >>> [halvings(size, size) for size in (8, 28, 32, 64, 128)]
        [1, 2, 3, 4, 5]
    """
    shorter = min(height, width)
    if shorter < 2 * _LEAST:
        raise ValueError(f"images must have {2 * _LEAST} pixels or more a side, received {height}×{width}")
    times = max(1, math.ceil(math.log2(shorter / _MOST)))
    check_halves(height, width, times)
    while height % 2 ** (times + 1) == width % 2 ** (times + 1) == 0 and shorter >= _LEAST * 2 ** (times + 1):
        times += 1
    return times


def check_halves(height: int, width: int, times: int) -> None:
    r"""Refuses a size that cannot be halved so often.

    Raises:
        ValueError: Height or width is not divisible by 2 to the power of ``times``; the nearest that are stand in it.
    """
    factor = 2**times
    if height % factor or width % factor:
        below = [max(factor, side // factor * factor) for side in (height, width)]
        above = [math.ceil(side / factor) * factor for side in (height, width)]
        near = " or ".join(dict.fromkeys(f"{rows}×{columns}" for rows, columns in (below, above)))
        raise ValueError(f"height and width must be divisible by {factor}, received {height}×{width}; near are {near}")
