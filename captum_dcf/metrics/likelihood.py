r"""What a density says: is the counterfactual as plausible as real images?"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_dcf.generators.base import Generator
from captum_dcf.generators.support import plausibility
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
    with generator.constant():
        # Copies, since a flow may write into its input.
        return torch.cat([generator.log_prob(part.clone()) for part in torch.split(counterfactuals, _IMAGES_AT_ONCE)])


@metric(better="higher")
@torch.no_grad()
def likelihood_percentile(generator: Generator, counterfactuals: Tensor) -> Tensor:
    r"""Percentage of the generator's training images that are less plausible to it than x'.

    Range [0, 100], in per cent; higher is more plausible. Around 50 is what a real image has; near 0, x' is less
    plausible than almost all of them, as adversarial examples are. The plausibility is log p(x'), or minus the length
    of the latent for a generator without a density. NaN where that is.

    Args:
        generator: One with a ``support``: those of the zoo that are trained to be searched have one, and
            :func:`~captum_dcf.generators.measure_support` measures it. In evaluation mode.
        counterfactuals: Images x' (N, C, H, W).

    Returns:
        Percentages (N,).

    Raises:
        ValueError: The generator has no support, or one of another kind.
    """
    check_images(counterfactuals=counterfactuals)
    check_judge(generator)
    name = type(generator).__name__
    if generator.support is None:
        raise ValueError(f"{name} has no support: set generator.support = measure_support(generator, training images)")
    if len(counterfactuals) == 0:
        return counterfactuals.new_zeros(0, dtype=result_dtype(counterfactuals))
    # A copy, since a flow may write into its input.
    measured, values = plausibility(generator, counterfactuals.clone())
    if measured != generator.support.of:
        raise ValueError(f"the support of {name} is of {generator.support.of}, and {name} gives {measured}")
    return generator.support.percentile(values)
