r"""Captum's saliency methods in a benchmark of counterfactuals, and Captum's metrics of both."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from captum.attr import (
    Attribution,
    GradientShap,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    Occlusion,
    Saliency,
)
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

from captum_dcf.benchmark.case import Case, Metric, SaliencyMap
from captum_dcf.benchmark.plan import Method
from captum_dcf.context import preserve_random_state
from captum_dcf.search import Goal

__all__ = ["SALIENCY", "infidelity_metric", "saliency_arguments", "saliency_method", "sensitivity_metric"]


def saliency_method(name: str, model: nn.Module, **arguments: Any) -> Method:
    r"""A saliency method of Captum, which explains the class that the model sees in x.

    Args:
        name: One of ``SALIENCY``.
        model: The explained model.
        arguments: Further arguments of its ``attribute``; what it cannot do without has a default.

    Raises:
        ValueError: Another name, or a model the method does not apply to.
    """
    if name not in SALIENCY:
        raise ValueError(f"saliency methods are {', '.join(SALIENCY)}, received {name!r}")
    attribution = SALIENCY[name](model)

    def explain(images: Tensor, goal: Goal) -> SaliencyMap:
        seen = _seen(model, images)
        needed = DEFAULTS.get(name, _nothing)(images)
        # Captum warns unless it is given a leaf that requires gradients.
        leaf = images.detach().clone().requires_grad_()
        attributions = attribution.attribute(leaf, target=seen, **{**needed, **arguments})
        return SaliencyMap(attributions.detach(), seen)

    return Method(name, explain)


def saliency_arguments(name: str, model: nn.Module) -> list[str]:
    r"""The arguments that :func:`saliency_method` passes on to ``attribute``."""
    given = ("inputs", "target", "kwargs")
    return [one for one in inspect.signature(SALIENCY[name](model).attribute).parameters if one not in given]


def infidelity_metric(model: nn.Module, *, noise: float = 0.2, samples: int = 20) -> Metric:
    r"""Captum's infidelity: do the attributions tell how the explained score changes under Gaussian noise?

    Normalised twice, so that methods can be compared. The attributions are scaled to fit best, for x' - x has the unit
    of pixels and not that of a score; and what they leave unexplained is divided by all there is to explain, for not
    all methods explain the same class. In [0, 1] but for rounding; lower is better, 0 where the
    attributions tell everything.

    Args:
        model: The explained model.
        noise: Deviation of the noise, in pixel values.
        samples: Noisy images per example.
    """

    def perturbed(inputs: Tensor) -> tuple[Tensor, Tensor]:
        change = noise * torch.randn_like(inputs)
        return change, inputs - change

    def compute(case: Case) -> Tensor:
        def unexplained(attributions: Tensor, normalize: bool) -> Tensor:
            values: Tensor = infidelity(
                model,
                perturbed,
                case.inputs,
                attributions,
                target=case.explained,
                n_perturb_samples=samples,
                normalize=normalize,
            )
            return values.detach()

        # The same noise for both.
        with preserve_random_state(case.inputs.device):
            by_nothing = unexplained(torch.zeros_like(case.inputs), False)
        return unexplained(case.attributions, True) / by_nothing

    return _LowerIsBetter(compute)


def sensitivity_metric(model: nn.Module, *, radius: float = 0.02, samples: int = 4) -> Metric:
    r"""Captum's greatest sensitivity: how much a little noise changes the attributions, relative to their length.

    In [0, ∞); lower is better. A saliency method explains the class that the model sees in the noisy image.

    Args:
        model: The explained model; not asked, since the method asks it.
        radius: Greatest change of a pixel.
        samples: Noisy images per example; each of them is explained anew.
    """

    def compute(case: Case) -> Tensor:
        # The noisy images of all samples come in one batch, with what is called target expanded alike. It must be
        # answered with a tuple: the examples of a tensor would be taken for several inputs.
        def explain(inputs: Tensor | tuple[Tensor, ...], target: Tensor) -> tuple[Tensor]:
            images = inputs[0] if isinstance(inputs, tuple) else inputs
            return (case.attribute(images.detach(), target).contiguous(),)

        rows = torch.arange(len(case.inputs), device=case.inputs.device)
        changes: Tensor = sensitivity_max(
            explain, case.inputs, perturb_radius=radius, n_perturb_samples=samples, target=rows
        )
        return changes

    return _LowerIsBetter(compute)


class _LowerIsBetter:
    """A metric of cases that says its direction, as those of captum_dcf.metrics do."""

    better, of = "lower", "example"

    def __init__(self, compute: Callable[[Case], Tensor]) -> None:
        self.compute = compute

    def __call__(self, case: Case) -> Tensor:
        return self.compute(case)


def _seen(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = model(images)
    return output.argmax(1)


def _guided_grad_cam(model: nn.Module) -> GuidedGradCam:
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    if not layers:
        raise ValueError(f"GuidedGradCam applies to models with a Conv2d layer; {type(model).__name__} has none")
    return GuidedGradCam(model, layers[-1])


def _nothing(images: Tensor) -> dict[str, Any]:
    return {}


def _signed(images: Tensor) -> dict[str, Any]:
    return {"abs": False}


def _zero_baselines(images: Tensor) -> dict[str, Any]:
    return {"baselines": torch.zeros_like(images[:1])}


def _windows(images: Tensor) -> dict[str, Any]:
    # Seven in a row, each half over its neighbour, all channels at once.
    channels, sides = images.shape[1], [max(1, side // 7) for side in images.shape[2:]]
    return {
        "sliding_window_shapes": (channels, *sides),
        "strides": (channels, *[max(1, side // 2) for side in sides]),
    }


SALIENCY: dict[str, Callable[[nn.Module], Attribution]] = {
    "Saliency": Saliency,
    "InputXGradient": InputXGradient,
    "IntegratedGradients": IntegratedGradients,
    "GradientShap": GradientShap,
    "Occlusion": Occlusion,
    "GuidedGradCam": _guided_grad_cam,
}
DEFAULTS: dict[str, Callable[[Tensor], dict[str, Any]]] = {
    "Saliency": _signed,
    "GradientShap": _zero_baselines,
    "Occlusion": _windows,
}
