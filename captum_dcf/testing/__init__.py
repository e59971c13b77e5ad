r"""What a generator, a goal and a method promise, as checks for the tests of your own.

Each function runs every promise on a few of your images and raises a :class:`BrokenPromise`, an AssertionError, that
names the one that does not hold. It returns the names of those that do.

Examples:
    >>> import torch
    >>> from captum_dcf import Pixels
    >>> check_generator(Pixels((1, 4, 4)), torch.rand(3, 1, 4, 4))[:2]
    ['is_ready', 'encodes_to_rows']
"""

from .generators import check_generator
from .goals import check_goal
from .methods import check_method
from .promise import BrokenPromise
from .unchanged import unchanged

__all__ = ["BrokenPromise", "check_generator", "check_goal", "check_method", "unchanged"]
