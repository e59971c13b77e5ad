r"""Denoised validity: is the change still there when an autoencoder has taken the noise away?"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_dcf.metrics._arguments import check_images, check_same_shape, class_indices
from captum_dcf.metrics._judges import ForwardFunc, OutputKind, ask
from captum_dcf.metrics.oracle import validity
from captum_dcf.metrics.reconstruction import Autoencoder
from captum_dcf.metrics.registry import metric

__all__ = ["denoised_source", "denoised_validity"]


@metric(better="higher")
@torch.no_grad()
def denoised_validity(
    classifier: ForwardFunc,
    autoencoder: Autoencoder,
    counterfactuals: Tensor,
    target: int | Tensor,
    *,
    output: OutputKind = "logits",
) -> Tensor:
    r"""Whether the explained model calls x' the target class after an autoencoder has reconstructed it.

    .. math:: [\, \arg\max_k f_k(D(x')) = t \,]

    0 or 1; higher is better. An autoencoder keeps what images of the data have in common and loses the rest, and with
    it the noise of an adversarial example: of fours that became nines 98 % remain nines by a search in latents, and
    16 % by one in pixels. Read it beside :func:`denoised_source`. A measure of this name is in Mirror-CFE (ICCV 2025).

    Args:
        classifier: The explained model.
        autoencoder: Gives reconstructions of images. Trained on all classes, and without a part in the search.
        counterfactuals: Images x' (N, C, H, W).
        target: Class t: an int, or an integer tensor (N,).
        output: What ``classifier`` gives, as for :func:`~captum_dcf.metrics.validity`.

    Returns:
        0 or 1 (N,), floating point.

    Raises:
        ValueError: A shape does not fit, or the model has no class ``target``.
    """
    return _calls(classifier, autoencoder, counterfactuals, target, "target", output)


@metric(better="lower")
@torch.no_grad()
def denoised_source(
    classifier: ForwardFunc,
    autoencoder: Autoencoder,
    counterfactuals: Tensor,
    source: int | Tensor,
    *,
    output: OutputKind = "logits",
) -> Tensor:
    r"""Whether x' falls back to the class of x when an autoencoder has reconstructed it.

    .. math:: [\, \arg\max_k f_k(D(x')) = \arg\max_k f_k(x) \,]

    0 or 1; lower is better. Asked of x itself, as in the row of a method that changes nothing, it is the control: the
    share of real images whose class the autoencoder keeps, which should be near 1. NaN where x' is not finite.

    Args:
        classifier: The explained model.
        autoencoder: As for :func:`denoised_validity`.
        counterfactuals: Images x' (N, C, H, W).
        source: Class that the model gives x: an int, or an integer tensor (N,).
        output: What ``classifier`` gives, as for :func:`~captum_dcf.metrics.validity`.

    Returns:
        0 or 1 (N,), floating point.

    Raises:
        ValueError: A shape does not fit, or the model has no class ``source``.
    """
    falls_back = _calls(classifier, autoencoder, counterfactuals, source, "source", output)
    # What is not finite is called no class, and would be among the best.
    return falls_back.masked_fill(~counterfactuals.flatten(1).isfinite().all(1), torch.nan)


def _calls(
    classifier: ForwardFunc,
    autoencoder: Autoencoder,
    images: Tensor,
    label: int | Tensor,
    name: str,
    output: OutputKind,
) -> Tensor:
    check_images(counterfactuals=images)
    labels = class_indices(label, images, name)
    denoised = ask(autoencoder, images) if len(images) else images
    check_same_shape(counterfactuals=images, reconstructions=denoised)
    return validity(classifier, denoised.to(images.dtype), labels, output=output)
