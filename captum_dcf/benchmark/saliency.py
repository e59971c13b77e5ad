r"""Captum's saliency methods in a benchmark of counterfactuals, and Captum's measures of both."""

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

from captum_dcf.attr.kept import random_state_kept
from captum_dcf.benchmark.plan import Case, Measure, Method, SaliencyMap
from captum_dcf.metrics import deletion, insertion

__all__ = [
    "SALIENCY",
    "deletion_measure",
    "infidelity_measure",
    "insertion_measure",
    "saliency_arguments",
    "saliency_method",
    "sensitivity_measure",
]


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

    def explain(images: Tensor, targets: Tensor) -> SaliencyMap:
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


def deletion_measure(model: nn.Module, steps: int = 10) -> Measure:
    r"""Deletion: how fast the class that the model sees in x vanishes with the pixels of highest attribution."""
    return lambda case: deletion(model, case.inputs, case.attributions, _seen(model, case.inputs), steps=steps)


def insertion_measure(model: nn.Module, steps: int = 10) -> Measure:
    r"""Insertion: how fast the class that the model sees in x appears with the pixels of highest attribution."""
    return lambda case: insertion(model, case.inputs, case.attributions, _seen(model, case.inputs), steps=steps)


def infidelity_measure(model: nn.Module, noise: float = 0.2, samples: int = 20) -> Measure:
    r"""Captum's infidelity: do the attributions tell how the explained score changes under Gaussian noise?

    Normalised twice, so that methods can be compared. The attributions are scaled to fit best, for x' - x has the unit
    of pixels and not that of a score; and what they leave unexplained is divided by all there is to explain, for not
    all methods explain the same class. In [0, 1] but for rounding; 0 where the attributions tell everything.

    Args:
        model: The explained model.
        noise: Deviation of the noise, in pixel values.
        samples: Noisy images per example.
    """

    def perturbed(inputs: Tensor) -> tuple[Tensor, Tensor]:
        change = noise * torch.randn_like(inputs)
        return change, inputs - change

    def measure(case: Case) -> Tensor:
        def unexplained(attributions: Tensor, normalize: bool) -> Tensor:
            return infidelity(
                model,
                perturbed,
                case.inputs,
                attributions,
                target=case.explained,
                n_perturb_samples=samples,
                normalize=normalize,
            ).detach()

        # The same noise for both.
        with random_state_kept(case.inputs.device):
            by_nothing = unexplained(torch.zeros_like(case.inputs), False)
        return unexplained(case.attributions, True) / by_nothing

    return measure


def sensitivity_measure(radius: float = 0.02, samples: int = 4) -> Measure:
    r"""Captum's greatest sensitivity: how much a little noise changes the attributions, relative to their length.

    A saliency method explains the class that the model sees in the noisy image.

    Args:
        radius: Greatest change of a pixel.
        samples: Noisy images per example; each of them is explained anew.
    """

    def measure(case: Case) -> Tensor:
        # The noisy images of all samples come in one batch, with targets expanded alike. It must be answered with a
        # tuple: the examples of a tensor would be taken for several inputs.
        def explain(inputs: Tensor | tuple[Tensor, ...], target: Tensor) -> tuple[Tensor]:
            images = inputs[0] if isinstance(inputs, tuple) else inputs
            return (case.attribute(images.detach(), target).contiguous(),)

        return sensitivity_max(
            explain, case.inputs, perturb_radius=radius, n_perturb_samples=samples, target=case.targets
        )

    return measure


def _seen(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images).argmax(1)


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
