r"""What the geometry of a generator says: does the change stay on the data manifold?"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_dcf.generators.base import Generator
from captum_dcf.geometry import off_manifold_share, tangent_space
from captum_dcf.metrics._arguments import check_same_shape, result_dtype
from captum_dcf.metrics._judges import check_judge
from captum_dcf.metrics.registry import metric

__all__ = ["off_manifold"]


@metric(better="lower")
@torch.no_grad()
def off_manifold(generator: Generator, inputs: Tensor, attributions: Tensor, *, dimension: int) -> Tensor:
    r"""How much of an attribution leaves the data manifold: the sine of its angle to the tangent space at x.

    .. math:: \| a - U U^T a \|_2 / \| a \|_2

    The columns of U are the left singular vectors of the generator's Jacobian at x that have the largest singular
    values (Dombrowski et al., 2024, https://arxiv.org/abs/2206.05075). Range [0, 1], no unit; lower is better. 0 where
    nothing changes, NaN where an attribution is not finite. A finite change along a curved manifold leaves the tangent
    space too: compare changes of similar length.

    Args:
        generator: Its manifold; in evaluation mode.
        inputs: Images x (N, C, H, W).
        attributions: x' - x, or those of any method, of the same shape.
        dimension: Dimension of the tangent space, such as the median of :func:`captum_dcf.geometry.local_dimension`.

    Returns:
        Shares (N,).

    Raises:
        ValueError: The shapes differ, or ``dimension`` is not from 1 to the number of latents or of pixels.
    """
    check_same_shape(inputs=inputs, attributions=attributions)
    if len(inputs) == 0:
        return inputs.new_zeros(0, dtype=result_dtype(inputs, attributions))
    check_judge(generator)
    # Copies, since an encoder may write into its input.
    with generator.constant():
        basis = tangent_space(generator.decode, generator.encode(inputs.clone()), dimension)
    return off_manifold_share(attributions.to(result_dtype(inputs, attributions)), basis)
