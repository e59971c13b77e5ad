r"""Counterfactuals in an evaluation by Quantus, as the ``explain_func`` that its metrics ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from captum.attr import Attribution
from torch import nn

from captum_dcf.attr import CounterfactualAttribution
from captum_dcf.search import LeaveClass

__all__ = ["quantus_explain"]


def quantus_explain(
    method: Callable[[nn.Module], Attribution], target: int | None = None, **arguments: Any
) -> Callable[..., np.ndarray]:
    r"""A method as ``explain_func`` of Quantus.

    One line enters a counterfactual method into an existing evaluation: ``explain_func=quantus_explain(method)`` in the
    call of a metric. What comes back is x' - x; pass ``abs=True`` to a metric that ranks pixels, since what has to be
    added speaks as much as what has to go.

    Args:
        method: From a model to a method: Quantus asks about altered models as well. A class of Captum such as
            ``Saliency`` is one; ``partial(DiffeomorphicCounterfactual, generator=generator)`` is another.
        target: The class that counterfactuals are to reach. By default they are to leave the class that Quantus asks
            about, whichever they come to.
        arguments: Further arguments of ``attribute``, such as ``confidence``; an ``explain_func_kwargs`` of the metric
            overrides them, ``device`` excepted, which says where the images go.

    Returns:
        A function of model, inputs and targets (arrays or tensors, N first), to attributions of the inputs' shape.

    Raises:
        TypeError: ``method`` is not callable.

    Examples:
        >>> from functools import partial
        >>> from captum_dcf import DiffeomorphicCounterfactual, Pixels
        >>> generator = Pixels((1, 4, 4))
        >>> explain = quantus_explain(partial(DiffeomorphicCounterfactual, generator=generator), confidence=0.6)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
        >>> explain(model, np.full((2, 1, 4, 4), 0.5, dtype=np.float32), np.array([0, 1])).shape
        (2, 1, 4, 4)
    """
    if not callable(method):
        raise TypeError(f"method must be a class or a function that takes the model, received {type(method).__name__}")

    def explain(model: nn.Module, inputs: Any, targets: Any, device: Any = None, **kwargs: Any) -> np.ndarray[Any, Any]:
        weight = next(model.parameters(), torch.empty(0))
        place = device or weight.device
        images = torch.as_tensor(inputs, dtype=weight.dtype, device=place).detach().clone()
        classes = torch.as_tensor(targets, device=place).long().reshape(-1)
        attribution = method(model)
        chosen = {**arguments, **kwargs}
        if not isinstance(attribution, CounterfactualAttribution):
            images.requires_grad_()
            chosen = {"target": classes, **chosen}
        elif target is not None:
            chosen = {"target": target, **chosen}
        else:
            chosen = {"goal": LeaveClass(classes, chosen.pop("confidence", 0.99)), **chosen}
        attributions: torch.Tensor = attribution.attribute(images, **chosen)
        return attributions.detach().cpu().numpy()

    return explain
