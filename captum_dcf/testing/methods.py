r"""What a method promises."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_dcf.attr import CounterfactualAttribution
from captum_dcf.attr._modules import modules_of
from captum_dcf.search import Counterfactual, Status
from captum_dcf.testing.promise import check_images, is_near, promise, run
from captum_dcf.testing.unchanged import unchanged

__all__ = ["check_method"]

FIELDS = ("counterfactuals", "reconstructions", "status", "reached", "steps", "start_scores", "end_scores")


def check_method(
    method: CounterfactualAttribution,
    images: Tensor,
    target: Any = None,
    tolerance: float = 1e-4,
    **options: Any,
) -> list[str]:
    r"""Checks a method of your own by what it does with some images.

    Args:
        method: With a model and coordinates that are well-conditioned: where rounding decides which way a search turns,
            an example alone and the same one in a batch may differ by more than it.
        images: Two or more, (N, ...).
        target: Of the call.
        tolerance: Largest difference of a pixel or score that counts as rounding.
        options: Of the call; a goal must be one for all examples.

    Raises:
        BrokenPromise: A promise does not hold.
    """
    if not isinstance(method, CounterfactualAttribution):
        raise TypeError(f"method must be a counterfactual method, received {type(method).__name__}")
    check_images("images", images)
    checks = [_is_finite_and_in_range, _says_what_is_reached, _adds_up, _keeps_to_its_steps, _is_the_same_twice]
    checks += [_is_the_same_alone, _changes_nothing, _changes_nothing_when_interrupted, _can_be_saved]
    return run(checks, _Call(method, images, target, options), tolerance)


class _Call:
    """One call of a method, and its result."""

    def __init__(self, method: CounterfactualAttribution, images: Tensor, target: Any, options: dict[str, Any]) -> None:
        self.method, self.images, self.target, self.options = method, images, target, options
        self.result = self.again(images, target)

    def again(self, images: Tensor, target: Any, **other: Any) -> Counterfactual:
        return self.method.counterfactual(images, target, **{**self.options, **other})

    def modules(self) -> list[nn.Module]:
        return self.method.modules()

    def alone(self, row: int) -> Counterfactual:
        target = self.target
        if isinstance(target, list) or (isinstance(target, Tensor) and target.numel() > 1):
            target = target[row : row + 1]
        own, latents = slice(row, row + 1), self.options.get("latents")
        return self.again(self.images[own], target, latents=None if latents is None else latents[own])


def _is_finite_and_in_range(call: _Call, tolerance: float) -> None:
    found = call.result.counterfactuals
    promise(found.isfinite().all(), "counterfactuals must be finite")
    promise(found.shape == call.images.shape and found.dtype == call.images.dtype, "x' must be like x")
    bounds = call.method.coordinates(call.images).data_range
    moved = call.result.status != Status.ALREADY_THERE
    if bounds is not None and moved.any():
        low, high = float(found[moved].min()), float(found[moved].max())
        promise(bounds[0] <= low and high <= bounds[1], f"x' reaches from {low} to {high}, beyond {bounds}")


def _says_what_is_reached(call: _Call, tolerance: float) -> None:
    result = call.result
    # Start latents would be those of x.
    again = call.again(result.counterfactuals, call.target, latents=None)
    already = again.status == Status.ALREADY_THERE
    clear = (again.start_scores - result.end_scores).abs() <= tolerance
    promise(clear.all(), "end_scores must be the scores of x'")
    promise((already == result.reached).all(), "reached must be what the goal says of x'")
    found = (result.status == Status.FOUND) | (result.status == Status.ALREADY_THERE)
    promise(result.reached[found].all(), "what is FOUND must reach the goal")


def _adds_up(call: _Call, tolerance: float) -> None:
    result = call.result
    parts = result.latent_change + result.reconstruction_error
    promise(is_near(parts, result.attributions, tolerance), "x' - x must be latent change plus reconstruction error")


def _keeps_to_its_steps(call: _Call, tolerance: float) -> None:
    most = call.options.get("max_steps") or call.method.default_max_steps
    promise((call.result.steps <= most).all(), f"no example may take more than {most} steps")


def _is_the_same_twice(call: _Call, tolerance: float) -> None:
    again = call.again(call.images, call.target)
    for name in FIELDS:
        promise(torch.equal(getattr(again, name), getattr(call.result, name)), f"two calls must give equal {name}")


def _is_the_same_alone(call: _Call, tolerance: float) -> None:
    alone = Counterfactual.concatenate(call.alone(row) for row in range(len(call.images)))
    for name in ("status", "steps"):
        same = torch.equal(getattr(alone, name), getattr(call.result, name))
        promise(same, f"an example alone must have the {name} that it has in a batch")
    near = is_near(alone.counterfactuals, call.result.counterfactuals, tolerance)
    promise(near, "an example alone must get the image that it gets in a batch")


def _changes_nothing(call: _Call, tolerance: float) -> None:
    with unchanged(call.modules(), call.images):
        call.again(call.images, call.target)


def _changes_nothing_when_interrupted(call: _Call, tolerance: float) -> None:
    def interrupt(module: nn.Module, inputs: Any) -> None:
        raise KeyboardInterrupt

    modules = modules_of(call.method.forward_func)
    with unchanged(call.modules(), call.images):
        handles = [module.register_forward_pre_hook(interrupt) for module in modules[:1]]
        try:
            call.again(call.images, call.target)
        except KeyboardInterrupt:
            pass
        finally:
            for handle in handles:
                handle.remove()


def _can_be_saved(call: _Call, tolerance: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.safetensors"
        call.result.save(path)
        read = Counterfactual.load(path)
    for name in FIELDS:
        promise(torch.equal(getattr(read, name), getattr(call.result, name).cpu()), f"{name} must survive a save")
    promise(read.about == call.result.about, "about must survive a save")
