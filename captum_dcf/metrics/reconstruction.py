r"""What autoencoders say: does one that knows a class reconstruct the counterfactual well?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from captum_dcf.metrics._arguments import check_images, check_same_shape, class_indices, in_common_dtype, result_dtype
from captum_dcf.metrics._judges import ask
from captum_dcf.metrics.registry import metric

__all__ = ["Autoencoder", "ClassAutoencoders", "im1", "im2", "reconstruction_share"]

Autoencoder = Callable[[Tensor], Tensor]
ClassAutoencoders = Mapping[int, Autoencoder] | Sequence[Autoencoder] | nn.ModuleList | nn.ModuleDict

# Keeps a quotient finite where an autoencoder is perfect or an image black; far below any real error.
_EPSILON = 1e-8


@metric(better="lower")
@torch.no_grad()
def im1(autoencoders: ClassAutoencoders, counterfactuals: Tensor, target: int | Tensor, source: int | Tensor) -> Tensor:
    r"""IM1: how much better the autoencoder of the target class reconstructs x' than that of the source class.

    .. math:: \frac{\| x' - \mathrm{AE}_t(x') \|_2}{\| x' - \mathrm{AE}_{c_0}(x') \|_2 + \epsilon}

    Range [0, ∞), no unit; lower is better: below 1, x' is more like the target class than like the class it came from.
    The norms are not squared, as in Dombrowski et al. (2024, https://arxiv.org/abs/2206.05075); Van Looveren and Klaise
    (2021, https://arxiv.org/abs/1907.02584), who introduced it, square them.

    Args:
        autoencoders: For each class a callable that gives reconstructions of images, as a mapping from class to
            autoencoder (of a ``ModuleDict``, whose keys are strings: "4") or as a sequence.
        counterfactuals: Images x' (N, C, H, W).
        target: Class t that was to be reached: an int, or an integer tensor (N,).
        source: Class c₀ of the input, in the same forms.

    Returns:
        Quotients (N,).

    Raises:
        ValueError: A class has no autoencoder, or a shape does not fit.
    """
    check_images(counterfactuals=counterfactuals)
    targets = class_indices(target, counterfactuals)
    sources = class_indices(source, counterfactuals, "source")
    to_target = _error(counterfactuals, _by_class(counterfactuals, targets, autoencoders))
    to_source = _error(counterfactuals, _by_class(counterfactuals, sources, autoencoders))
    return to_target / (to_source + _EPSILON)


@metric(better="lower")
@torch.no_grad()
def im2(
    autoencoders: ClassAutoencoders, autoencoder: Autoencoder, counterfactuals: Tensor, target: int | Tensor
) -> Tensor:
    r"""IM2: how far the autoencoders of the target class and of all classes disagree about x'.

    .. math:: \frac{\| \mathrm{AE}_t(x') - \mathrm{AE}(x') \|_2}{\| x' \|_1 + \epsilon}

    Range [0, ∞), no unit; lower is better, but the denominator favours bright images. Norm not squared, as in
    :func:`im1` (Van Looveren and Klaise, 2021, https://arxiv.org/abs/1907.02584).

    Args:
        autoencoders: For each class an autoencoder, as in :func:`im1`.
        autoencoder: One that was trained on all classes.
        counterfactuals: Images x' (N, C, H, W).
        target: Class t that was to be reached: an int, or an integer tensor (N,).

    Returns:
        Quotients (N,).

    Raises:
        ValueError: A class has no autoencoder, or a shape does not fit.
    """
    check_images(counterfactuals=counterfactuals)
    targets = class_indices(target, counterfactuals)
    reconstructions = _by_class(counterfactuals, targets, autoencoders)
    # No image has nothing to ask about.
    disagreement = _error(ask(autoencoder, counterfactuals) if len(targets) else reconstructions, reconstructions)
    return disagreement / (counterfactuals.to(result_dtype(counterfactuals)).flatten(1).abs().sum(1) + _EPSILON)


@metric(better="lower")
@torch.no_grad()
def reconstruction_share(inputs: Tensor, counterfactuals: Tensor, reconstructions: Tensor) -> Tensor:
    r"""How much of x' - x is the generator's reconstruction error, not the change of latents.

    .. math:: \frac{\| \tilde x - x \|_2}{\| \tilde x - x \|_2 + \| x' - \tilde x \|_2}, \quad \tilde x = g(e(x))

    Range [0, 1], no unit; lower is better: 0 for an exact generator, 1 where x' is nothing but the reconstruction. 0
    where both distances are 0, NaN where one of them is not finite.

    Args:
        inputs: Images x (N, C, H, W).
        counterfactuals: Images x' of the same shape.
        reconstructions: What the generator of the search makes of x, of the same shape, such as
            ``result.reconstructions``.

    Returns:
        Shares (N,).

    Raises:
        ValueError: The shapes differ.
    """
    check_same_shape(inputs=inputs, counterfactuals=counterfactuals, reconstructions=reconstructions)
    error = _error(reconstructions, inputs)
    total = error + _error(counterfactuals, reconstructions)
    share = (error / total).masked_fill(total == 0, 0.0)
    return share.masked_fill(~total.isfinite(), torch.nan)


def _error(images: Tensor, others: Tensor) -> Tensor:
    if images.shape != others.shape:
        raise ValueError(
            "an autoencoder must keep the shape of its images, "
            f"received {tuple(images.shape)} and {tuple(others.shape)}"
        )
    first, second = in_common_dtype(images, others)
    lengths: Tensor = torch.linalg.vector_norm((first - second).flatten(1), dim=1)
    return lengths


def _by_class(images: Tensor, classes: Tensor, autoencoders: ClassAutoencoders) -> Tensor:
    reconstructions = torch.empty_like(images, dtype=result_dtype(images))
    for label in sorted(set(classes.tolist())):
        chosen = classes == label
        reconstruction = ask(_autoencoder_of(label, autoencoders), images[chosen])
        if reconstruction.shape != images[chosen].shape:
            raise ValueError(
                f"the autoencoder of class {label} changes the shape of its images from {tuple(images[chosen].shape)} "
                f"to {tuple(reconstruction.shape)}"
            )
        reconstructions[chosen] = reconstruction.to(reconstructions.dtype)
    return reconstructions


def _autoencoder_of(label: int, autoencoders: ClassAutoencoders) -> Autoencoder:
    if isinstance(autoencoders, nn.ModuleDict):
        autoencoders = {int(name): module for name, module in autoencoders.items()}
    known = sorted(autoencoders) if isinstance(autoencoders, Mapping) else list(range(len(autoencoders)))
    if label not in known:
        raise ValueError(f"class {label} has no autoencoder; there are some for the classes {known}")
    return autoencoders[label]
