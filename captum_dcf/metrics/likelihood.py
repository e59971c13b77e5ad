r"""What a density says: is the counterfactual as plausible as real images?"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_dcf.generators.base import Generator
from captum_dcf.metrics._arguments import check_images, result_dtype
from captum_dcf.metrics._judges import check_judge
from captum_dcf.metrics.registry import metric

__all__ = ["likelihood_percentile", "log_likelihood"]

_IMAGES_AT_ONCE = 256


@metric(better="higher")
@torch.no_grad()
def log_likelihood(generator: Generator, counterfactuals: Tensor) -> Tensor:
    r"""Log-density of images under a generator, :math:`\log p(x)`.

    Any real number, in nats; higher is more plausible to the generator. Compare it with that of real images of the same
    kind (:func:`likelihood_percentile`): by itself it says little, and flows give flat images high densities.

    Args:
        generator: One with a density, such as a flow; in evaluation mode.
        counterfactuals: Images (N, C, H, W), counterfactuals or any others.

    Returns:
        Log-densities (N,).

    Raises:
        TypeError: The generator has no density.
    """
    check_images(counterfactuals=counterfactuals)
    check_judge(generator)
    if len(counterfactuals) == 0:
        return counterfactuals.new_zeros(0, dtype=result_dtype(counterfactuals))
    # Copies, since a flow may write into its input.
    return torch.cat([generator.log_prob(part.clone()) for part in torch.split(counterfactuals, _IMAGES_AT_ONCE)])


@metric(better="higher")
def likelihood_percentile(generator: Generator, counterfactuals: Tensor, references: Tensor) -> Tensor:
    r"""Percentage of held-out real images that are at most as plausible as x'.

    .. math:: \frac{100}{M} \sum_{j=1}^{M} [\, \log p(x_j) \le \log p(x') \,]

    Range [0, 100], in per cent; higher is more plausible. Around 50 is what a real image has; near 0, x' is less
    plausible than almost all of them, which is how adversarial examples look. NaN where the
    density of x' is.

    Args:
        generator: One with a density, such as a flow; in evaluation mode.
        counterfactuals: Images x' (N, C, H, W).
        references: Real images (M, C, H, W) that the generator was not trained on, best those of the target class.

    Returns:
        Percentages (N,).

    Raises:
        TypeError: The generator has no density.
        ValueError: There is no reference, the shapes do not fit, or the density of a reference is NaN.
    """
    check_images(counterfactuals=counterfactuals, references=references)
    if len(references) == 0:
        raise ValueError("there are no references: a percentile needs at least one")
    if counterfactuals.shape[1:] != references.shape[1:]:
        raise ValueError(
            "counterfactuals and references must be images of one shape, "
            f"received {tuple(counterfactuals.shape)} and {tuple(references.shape)}"
        )
    own, real = log_likelihood(generator, counterfactuals), log_likelihood(generator, references)
    if real.isnan().any():
        raise ValueError(f"references must have a density: of {len(real)}, {int(real.isnan().sum())} have NaN")
    percentages = 100 * (real[None] <= own[:, None]).to(own.dtype).mean(1)
    return percentages.masked_fill(own.isnan(), torch.nan)
