r"""What the explained model says while pixels are exchanged, those of the highest attribution first."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_dcf.metrics._arguments import ForwardFunc, check_same_shape, class_indices, class_probabilities, run_model
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
    additional_forward_args: Any = None,
) -> Tensor:
    r"""COUT: how soon the model changes its mind while the pixels of x' enter x, the most changed ones first.

    .. math:: \mathrm{AUC}(p_t) - \mathrm{AUC}(p_{c_0})

    Areas under the probabilities of target and source class over the share of pixels that have entered. Range [-1, 1];
    higher is better: a few pixels that matter bring the change about (Khorram and Fuxin, 2022,
    https://arxiv.org/abs/2203.15064).

    Args:
        classifier: The explained model, giving logits as for :func:`~captum_dcf.metrics.validity`.
        inputs: Images x (N, C, H, W).
        counterfactuals: Images x' of the same shape.
        target: Class t that was to be reached: an int, or an integer tensor (N,).
        source: Class c₀ of the inputs, in the same forms.
        steps: Number of equal portions in which the pixels enter.
        additional_forward_args: Further arguments of ``classifier``, one or a tuple.

    Returns:
        Differences (N,).

    Raises:
        ValueError: A shape does not fit, ``steps`` is below 1, or the model has no such class.
    """
    check_same_shape(inputs, counterfactuals)
    classes = torch.stack((class_indices(target, inputs), class_indices(source, inputs, "source")))
    change = counterfactuals - inputs
    areas = _areas(classifier, inputs, counterfactuals, change, classes, steps, additional_forward_args)
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
    additional_forward_args: Any = None,
) -> Tensor:
    r"""Area under the probability of a class while the pixels of highest attribution are taken away first.

    .. math:: \int_0^1 p_t(x \text{ without the share } s \text{ of highest } \textstyle\sum_c |a_c|) \, ds

    Range [0, 1]; lower is better: taking away what the attribution marks lowers the probability at once (Petsiuk et
    al., 2018, https://arxiv.org/abs/1806.07421). Pixels are ordered by the sum over channels of the attribution's
    magnitude; pass ``attributions.clamp(min=0)`` where only what speaks for the class should count.

    Args:
        classifier: The model, giving logits as for :func:`~captum_dcf.metrics.validity`.
        inputs: Images x (N, C, H, W).
        attributions: Of any method, (N, C, H, W) or (N, 1, H, W).
        source: Class whose probability is followed, as a rule the one that the model gives x: an int, or an integer
            tensor (N,).
        baselines: What a pixel is replaced by: a number, or a tensor that broadcasts to ``inputs``.
        steps: Number of equal portions in which the pixels go.
        additional_forward_args: Further arguments of ``classifier``, one or a tuple.

    Returns:
        Areas (N,).

    Raises:
        ValueError: A shape does not fit, ``steps`` is below 1, or the model has no class ``source``.
    """
    classes = class_indices(source, inputs, "source")[None]
    empty = _baseline_images(baselines, inputs)
    return _areas(classifier, inputs, empty, attributions, classes, steps, additional_forward_args)[0]


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
    additional_forward_args: Any = None,
) -> Tensor:
    r"""Area under the probability of a class while the pixels of highest attribution enter an empty image first.

    .. math:: \int_0^1 p_t(\text{baseline with the share } s \text{ of highest } \textstyle\sum_c |a_c|) \, ds

    Range [0, 1]; higher is better. Paper and order of the pixels are those of :func:`deletion`; the paper begins with a
    blurred image here.

    Args:
        classifier: The model, giving logits as for :func:`~captum_dcf.metrics.validity`.
        inputs: Images x (N, C, H, W).
        attributions: Of any method, (N, C, H, W) or (N, 1, H, W).
        source: Class whose probability is followed, as a rule the one that the model gives x: an int, or an integer
            tensor (N,).
        baselines: The image to begin with: a number, or a tensor that broadcasts to ``inputs``.
        steps: Number of equal portions in which the pixels enter.
        additional_forward_args: Further arguments of ``classifier``, one or a tuple.

    Returns:
        Areas (N,).

    Raises:
        ValueError: A shape does not fit, ``steps`` is below 1, or the model has no class ``source``.
    """
    classes = class_indices(source, inputs, "source")[None]
    empty = _baseline_images(baselines, inputs)
    return _areas(classifier, empty, inputs, attributions, classes, steps, additional_forward_args)[0]


def _areas(
    forward_func: ForwardFunc,
    start: Tensor,
    end: Tensor,
    attributions: Tensor,
    classes: Tensor,
    steps: int,
    additional_forward_args: Any,
) -> Tensor:
    # Areas (K, N) under the probabilities of K classes per example, while the pixels of `end` replace those of `start`.
    if steps < 1:
        raise ValueError(f"steps must be at least 1, received {steps}")
    ranks = _ranks(attributions, start)
    pixels = ranks[0].numel()
    curves = []
    for step in range(steps + 1):
        mixture = torch.where(ranks < round(step * pixels / steps), end, start)
        output = run_model(forward_func, mixture, additional_forward_args)
        curves.append(torch.stack([_probability(output, labels) for labels in classes]))
    return torch.trapezoid(torch.stack(curves), dx=1 / steps, dim=0)


def _probability(output: Tensor, classes: Tensor) -> Tensor:
    return class_probabilities(output, classes).gather(1, classes[:, None]).squeeze(1)


def _ranks(attributions: Tensor, images: Tensor) -> Tensor:
    # Place (N, 1, H, W) of each pixel in the order of falling attribution; equal ones keep the order of the image.
    one_channel = (*images.shape[:1], 1, *images.shape[2:])
    if images.dim() < 3 or attributions.shape not in (images.shape, one_channel):
        raise ValueError(
            "attributions must be of the shape of the inputs (N, C, H, W), or have one channel: "
            f"received {tuple(attributions.shape)} and {tuple(images.shape)}"
        )
    importance = attributions.abs().sum(1, keepdim=True)
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
