r"""The options of a call: the only place that documents and checks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor

from captum_dcf.search.goal import Goal, check_confidence
from captum_dcf.search.numbers import check_int

__all__ = ["DEFAULT_CONFIDENCE", "BatchSize", "OptionNames", "Options"]

BatchSize = int | Literal["auto"] | None
DEFAULT_CONFIDENCE = 0.99


class OptionNames(TypedDict, total=False):
    r"""The names and types of :class:`Options`, for editors and type checkers; a test holds the two equal."""

    goal: Goal | None
    confidence: float | None
    max_steps: int | None
    max_seconds: float | None
    latents: Tensor | None
    search_unreconstructed: bool
    refine: bool
    min_percentile: float | None
    class_names: Sequence[str] | None
    keep_path: bool
    internal_batch_size: BatchSize
    show_progress: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Options:
    r"""What ``attribute``, ``perturb`` and ``counterfactual`` take beside inputs, target and additional arguments.

    Attributes:
        goal: Another goal than the class that ``target`` names: ``LeaveClass``, ``AtLeast``, ``AtMost``, ``Near``, or
            one of your own.
        confidence: Λ, in (0, 1): the target counts as reached above this probability; 0.99 by default. A goal has its
            own.
        max_steps: Most steps of one example; by default those of the method, ``default_max_steps``.
        max_seconds: Seconds after which no search goes on, checked once a round; those that still search end as
            ``TIME_LIMIT`` with the best image on the way, and those that wait are encoded and judged once. None for no
            limit.
        latents: Where to start, (N, D), instead of at the encoded inputs; for instance ``result.start_latents`` of an
            earlier call, which saves an inversion. An example whose latents decode to what the model predicts otherwise
            is ``NOT_RECONSTRUCTED``.
        search_unreconstructed: Search on where the model changes its mind on the reconstruction. By default those
            examples end at once; in both cases they are ``NOT_RECONSTRUCTED``, and ``reached`` says the rest.
        refine: Shorten the last step by bisection, down to the threshold of the goal. Refused by the sparse methods,
            sampling and perturbations, which have no last step towards it.
        min_percentile: The support floor: x' is found only if it is more plausible to the generator than so many per
            cent of its training images, see :class:`~captum_dcf.search.support.Support`; on the way, a candidate below
            climbs back first. 0 for no floor; by default the method's, ``default_min_percentile``, where the generator
            knows its support.
        class_names: Names of the classes in their order, for what is printed and drawn.
        keep_path: Keep the images on the way, see :attr:`Counterfactual.path`.
        internal_batch_size: Search so many examples at a time, to bound memory; all at once by default. One that waits
            takes the place of one that has ended. ``"auto"`` begins with 256 and halves that whenever memory runs out.
            Results do not depend on it but for rounding.
        show_progress: Show a progress bar that counts the examples that have ended.

    Raises:
        TypeError: An option of a kind that is not accepted.
        ValueError: An option of a value that is not accepted.
    """

    goal: Goal | None = None
    confidence: float | None = None
    max_steps: int | None = None
    max_seconds: float | None = None
    latents: Tensor | None = None
    search_unreconstructed: bool = False
    refine: bool = False
    min_percentile: float | None = None
    class_names: Sequence[str] | None = None
    keep_path: bool = False
    internal_batch_size: BatchSize = None
    show_progress: bool = False

    def __post_init__(self) -> None:
        if self.goal is not None and not isinstance(self.goal, Goal):
            received = self.goal.__name__ if isinstance(self.goal, type) else type(self.goal).__name__
            raise TypeError(f"goal must be a captum_dcf Goal, such as LeaveClass(4), received {received}")
        if self.goal is not None and self.confidence is not None:
            raise ValueError(
                f"confidence={self.confidence} belongs to target=; a goal has its own, as in "
                f"{type(self.goal).__name__}(..., confidence=0.9) where it is one of classes"
            )
        if self.confidence is not None:
            check_confidence(self.confidence)
        for name in ("search_unreconstructed", "refine", "keep_path", "show_progress"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, received {getattr(self, name)!r}")
        if self.max_steps is not None:
            object.__setattr__(self, "max_steps", check_int("max_steps", self.max_steps))
        if self.max_seconds is not None:
            object.__setattr__(self, "max_seconds", _checked_seconds(self.max_seconds))
        if self.min_percentile is not None:
            object.__setattr__(self, "min_percentile", _checked_percentile(self.min_percentile))
        if self.class_names is not None:
            object.__setattr__(self, "class_names", _checked_names(self.class_names))
        if self.latents is not None:
            _check_latents(self.latents)
        if self.internal_batch_size is not None and not _is_auto(self.internal_batch_size):
            size = check_int("internal_batch_size", self.internal_batch_size, accepted="an int, 'auto' or None")
            object.__setattr__(self, "internal_batch_size", size)


def _is_auto(size: Any) -> bool:
    return isinstance(size, str) and size == "auto"


def _checked_seconds(seconds: Any) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, Real):
        raise TypeError(f"max_seconds must be a number or None, received {type(seconds).__name__}")
    if not float(seconds) > 0:
        raise ValueError(f"max_seconds must be positive, received {seconds}")
    return float(seconds)


def _checked_percentile(percentile: Any) -> float:
    if isinstance(percentile, bool) or not isinstance(percentile, Real):
        raise TypeError(f"min_percentile must be a number or None, received {type(percentile).__name__}")
    if not 0 <= float(percentile) < 100:
        raise ValueError(f"min_percentile must be 0 or more and below 100 per cent, received {percentile}")
    return float(percentile)


def _checked_names(names: Any) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"class_names must be a list of names, received {names!r}")
    return tuple(names)


def _check_latents(latents: Any) -> None:
    if not isinstance(latents, Tensor) or not latents.is_floating_point():
        received = latents.dtype if isinstance(latents, Tensor) else type(latents).__name__
        raise TypeError(f"latents must be a floating point tensor (N, D), received {received}")
    if latents.ndim != 2 or not torch.isfinite(latents).all():
        raise ValueError(f"latents must be finite and of shape (N, D), received {tuple(latents.shape)}")
