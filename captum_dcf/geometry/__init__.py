r"""Geometry of a decoder g: Jacobian, induced metric, spectrum and tangent space of the manifold it parametrises.

With J = ∂g/∂z and its singular values σ, the inverse induced metric is J Jᵀ; directions of large σ span the tangent
space of the data manifold, the others leave it (Dombrowski et al., 2024, https://arxiv.org/abs/2206.05075).

``decode`` is a function of latents (N, D), such as ``generator.decode``, that gives one image per latent, each of them
independent of the others, and is differentiable. Where D is far below P, and for a ``rank``, it must support
forward-mode differentiation, as torch's own operations do. For a flow call these functions within
``generator.constant()``, which saves work. Images are flattened to (N, P). Results have the dtype and device of the
latents, decompositions of half precision being made in float32, and carry no gradient.
"""

from .products import first_order_error, inverse_metric, jacobian
from .tangent import local_dimension, off_manifold_share, spectrum, tangent_space

__all__ = [
    "first_order_error",
    "inverse_metric",
    "jacobian",
    "local_dimension",
    "off_manifold_share",
    "spectrum",
    "tangent_space",
]
