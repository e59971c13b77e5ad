r"""What the explained model says while pixels are exchanged, those of the highest attribution first."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_dcf.metrics._arguments import check_images, check_same_shape, class_indices, result_dtype
from captum_dcf.metrics._judges import ForwardFunc, OutputKind, class_probabilities
from captum_dcf.metrics.registry import metric

__all__ = ["cout", "deletion", "insertion"]


@metric(better="higher")
@torch.no_grad()
def cout(
    classifier: ForwardFunc,
    inputs: Tensor,
    counterfactuals: Tensor,
    target: int | Tensor,
    source: int | Tensor,
    *,
    steps: int = 50,
    output: OutputKind = "logits",
    additional_forward_args: Any = None,
) -> Tensor:
    r"""COUT: how soon the model changes its mind while the pixels of x' enter x, the most changed ones first.

    .. math:: \mathrm{AUC}(p_t) - \mathrm{AUC}(p_{c_0})

    Areas under the probabilities of target and source class over the share of pixels that have entered. Range [-1, 1];
    higher is better: a few pixels that matter bring the change about (Khorram and Fuxin, 2022,
    https://arxiv.org/abs/2203.15064). NaN where x' - x is.

    Args:
        classifier: The explained model.
        inputs: Images x (N, C, H, W).
        counterfactuals: Images x' of the same shape.
        target: Class t that was to be reached: an int, or an integer tensor (N,).
        source: Class c₀ of the inputs, in the same forms.
        steps: Number of equal portions in which the pixels enter.
        output: What ``classifier`` gives, as for :func:`~captum_dcf.metrics.validity`.
        additional_forward_args: Further arguments of ``classifier``, one or a tuple.

    Returns:
        Differences (N,).

    Raises:
        ValueError: A shape does not fit, ``steps`` is below 1, or the model has no such class.
    """
    check_same_shape(inputs=inputs, counterfactuals=counterfactuals)
    classes = torch.stack((class_indices(target, inputs), class_indices(source, inputs, "source")))
    change = counterfactuals - inputs
    probabilities = _classes_of(classifier, classes, output, additional_forward_args)
    areas = _areas(probabilities, inputs, counterfactuals, change, steps)
    return areas[0] - areas[1]


@metric(better="lower")
@torch.no_grad()
def deletion(
    classifier: ForwardFunc,
    inputs: Tensor,
    attributions: Tensor,
    source: int | Tensor,
    *,
    baselines: float | Tensor = 0.0,
    steps: int = 10,
    output: OutputKind = "logits",
    additional_forward_args: Any = None,
) -> Tensor:
    r"""Area under the probability of a class while the pixels of highest attribution are taken away first.

    .. math:: \int_0^1 p_t(x \text{ without the share } s \text{ of highest } \textstyle\sum_c |a_c|) \, ds

    Range [0, 1]; lower is better: taking away what the attribution marks lowers the probability at once (Petsiuk et
    al., 2018, https://arxiv.org/abs/1806.07421). Pixels are ordered by the sum over channels of the attribution's
    magnitude; pass ``attributions.clamp(min=0)`` where only what speaks for the class should count. NaN where an
    attribution is.

    Args:
        classifier: The model.
        inputs: Images x (N, C, H, W).
        attributions: Of any method, (N, C, H, W) or (N, 1, H, W).
        source: Class whose probability is followed, as a rule the one that the model gives x: an int, or an integer
            tensor (N,).
        baselines: What a pixel is replaced by: a number, or a tensor that broadcasts to ``inputs``.
        steps: Number of equal portions in which the pixels go.
        output: What ``classifier`` gives, as for :func:`~captum_dcf.metrics.validity`.
        additional_forward_args: Further arguments of ``classifier``, one or a tuple.

    Returns:
        Areas (N,).

    Raises:
        ValueError: A shape does not fit, ``steps`` is below 1, or the model has no class ``source``.
    """
    check_images(inputs=inputs, attributions=attributions)
    classes = class_indices(source, inputs, "source")[None]
    empty = _baseline_images(baselines, inputs)
    probabilities = _classes_of(classifier, classes, output, additional_forward_args)
    return _areas(probabilities, inputs, empty, attributions, steps)[0]


@metric(better="higher")
@torch.no_grad()
def insertion(
    classifier: ForwardFunc,
    inputs: Tensor,
    attributions: Tensor,
    source: int | Tensor,
    *,
    baselines: float | Tensor = 0.0,
    steps: int = 10,
    output: OutputKind = "logits",
    additional_forward_args: Any = None,
) -> Tensor:
    r"""Area under the probability of a class while the pixels of highest attribution enter an empty image first.

    .. math:: \int_0^1 p_t(\text{baseline with the share } s \text{ of highest } \textstyle\sum_c |a_c|) \, ds

    Range [0, 1]; higher is better. Paper and order of the pixels are those of :func:`deletion`; the paper begins with a
    blurred image here. NaN where an attribution is.

    Args:
        classifier: The model.
        inputs: Images x (N, C, H, W).
        attributions: Of any method, (N, C, H, W) or (N, 1, H, W).
        source: Class whose probability is followed, as a rule the one that the model gives x: an int, or an integer
            tensor (N,).
        baselines: The image to begin with: a number, or a tensor that broadcasts to ``inputs``.
        steps: Number of equal portions in which the pixels enter.
        output: What ``classifier`` gives, as for :func:`~captum_dcf.metrics.validity`.
        additional_forward_args: Further arguments of ``classifier``, one or a tuple.

    Returns:
        Areas (N,).

    Raises:
        ValueError: A shape does not fit, ``steps`` is below 1, or the model has no class ``source``.
    """
    check_images(inputs=inputs, attributions=attributions)
    classes = class_indices(source, inputs, "source")[None]
    empty = _baseline_images(baselines, inputs)
    probabilities = _classes_of(classifier, classes, output, additional_forward_args)
    return _areas(probabilities, empty, inputs, attributions, steps)[0]


def _classes_of(
    classifier: ForwardFunc, classes: Tensor, output: OutputKind, additional_forward_args: Any
) -> Callable[[Tensor], Tensor]:
    # From images to the probabilities (K, N) of the K classes (K, N).
    def probabilities(images: Tensor) -> Tensor:
        of_all = class_probabilities(classifier, images, classes.amax(0), output, additional_forward_args)
        return of_all.gather(1, classes.T).T

    return probabilities


def _areas(
    probabilities: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, attributions: Tensor, steps: int
) -> Tensor:
    # Areas (K, N) under the probabilities of K classes per example, while the pixels of `end` replace those of `start`.
    if steps < 1:
        raise ValueError(f"steps must be at least 1, received {steps}")
    ranks = _ranks(attributions, start)
    pixels = math.prod(ranks.shape[1:])
    curves = [probabilities(torch.where(ranks < round(step * pixels / steps), end, start)) for step in range(steps + 1)]
    areas = torch.trapezoid(torch.stack(curves), dx=1 / steps, dim=0)
    # Pixels have no order there.
    return areas.masked_fill(attributions.flatten(1).isnan().any(1), torch.nan)


def _ranks(attributions: Tensor, images: Tensor) -> Tensor:
    # Place (N, 1, H, W) of each pixel in the order of falling attribution; equal ones keep the order of the image.
    one_channel = (*images.shape[:1], 1, *images.shape[2:])
    if images.dim() < 3 or attributions.shape not in (images.shape, one_channel):
        raise ValueError(
            "attributions must be of the shape of the inputs (N, C, H, W), or have one channel: "
            f"received {tuple(attributions.shape)} and {tuple(images.shape)}"
        )
    importance = attributions.to(result_dtype(attributions)).abs().sum(1, keepdim=True)
    order = importance.flatten(1).argsort(dim=1, descending=True, stable=True)
    return order.argsort(1).view(importance.shape)


def _baseline_images(baselines: float | Tensor, inputs: Tensor) -> Tensor:
    empty = torch.as_tensor(baselines, dtype=inputs.dtype, device=inputs.device)
    try:
        return empty.expand(inputs.shape)
    except RuntimeError as error:
        raise ValueError(
            f"baselines must broadcast to the inputs, received {tuple(empty.shape)} and {tuple(inputs.shape)}"
        ) from error
