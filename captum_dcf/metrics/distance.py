r"""How far a counterfactual is from its input: in pixels, in latents, in structure."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_dcf.generators.base import Generator
from captum_dcf.metrics._arguments import check_same_shape, in_common_dtype, result_dtype
from captum_dcf.metrics._judges import encoded
from captum_dcf.metrics.registry import metric

__all__ = ["l1", "l2_input", "l2_latent", "l2_latent_encoded", "sparsity", "ssim"]

_SSIM_WINDOW = 11
_SSIM_DEVIATION = 1.5


@metric(better="lower")
def l1(inputs: Tensor, counterfactuals: Tensor) -> Tensor:
    r"""Sum of absolute changes, :math:`\| x' - x \|_1`.

    Range [0, ∞), in pixel values; lower is closer.

    Args:
        inputs: Images x (N, ...).
        counterfactuals: Images x' of the same shape.

    Returns:
        Distances (N,).

    Raises:
        ValueError: The shapes differ.

    Examples:
        >>> l1(torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2))
        tensor([4., 4.])
    """
    return _change(inputs, counterfactuals).abs().sum(1)


@metric(better="lower")
def l2_input(inputs: Tensor, counterfactuals: Tensor) -> Tensor:
    r"""Euclidean distance in input space, :math:`\| x' - x \|_2`.

    Range [0, ∞), in pixel values; lower is closer. An adversarial example is closer here than a counterfactual on the
    data manifold: read it beside :func:`l2_latent_encoded`.

    Args:
        inputs: Images x (N, ...).
        counterfactuals: Images x' of the same shape.

    Returns:
        Distances (N,).

    Raises:
        ValueError: The shapes differ.

    Examples:
        >>> l2_input(torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2))
        tensor([2., 2.])
    """
    return _lengths(_change(inputs, counterfactuals))


@metric(better="lower")
def l2_latent(start_latents: Tensor, end_latents: Tensor) -> Tensor:
    r"""How far a search moved in latents, :math:`\| z' - z \|_2`.

    Range [0, ∞), in units of the latent space; lower is closer. z is where the search began, and z' what it decoded to
    x': ``result.start_latents`` and ``result.end_latents``. Before x' is judged its pixels are put within the range of
    the data, so the latent of x' is another one: see :func:`l2_latent_encoded`.

    Args:
        start_latents: Latents z (N, D).
        end_latents: Latents z' of the same shape.

    Returns:
        Distances (N,).

    Raises:
        ValueError: The shapes differ.

    Examples:
        >>> l2_latent(torch.zeros(2, 9), torch.ones(2, 9))
        tensor([3., 3.])
    """
    check_same_shape(start_latents=start_latents, end_latents=end_latents)
    start, end = in_common_dtype(start_latents, end_latents)
    return _lengths(end - start)


@metric(better="lower")
@torch.no_grad()
def l2_latent_encoded(generator: Generator, inputs: Tensor, counterfactuals: Tensor) -> Tensor:
    r"""Euclidean distance of the latents of the two images, :math:`\| g^{-1}(x') - g^{-1}(x) \|_2`.

    Range [0, ∞), in units of the latent space; lower is closer. Both images are encoded, so that it also judges
    counterfactuals which were not found with ``generator``, such as adversarial examples (Dombrowski et al., 2024,
    https://arxiv.org/abs/2206.05075).

    It is more than the search moved, :func:`l2_latent`, since pixels that the decoder leaves beyond the range of the
    data are put on its bounds, and these few pixels have other latents. For fours of MNIST that became nines by
    ``mnist-glow`` the search moved by 2.9 on average, and this distance is 6.1; without the clamp it is 2.9 too.

    Args:
        generator: Gives the latents; in evaluation mode.
        inputs: Images x (N, C, H, W).
        counterfactuals: Images x' of the same shape.

    Returns:
        Distances (N,).

    Raises:
        ValueError: The shapes differ.
    """
    check_same_shape(inputs=inputs, counterfactuals=counterfactuals)
    if len(inputs) == 0:
        return inputs.new_zeros(0, dtype=result_dtype(inputs))
    start, end = in_common_dtype(encoded(generator, inputs), encoded(generator, counterfactuals))
    return _lengths(end - start)


@metric(better="higher")
def sparsity(inputs: Tensor, counterfactuals: Tensor, *, tolerance: float = 0.5 / 255) -> Tensor:
    r"""Share of pixels left alone: no channel of them changes by more than ``tolerance``.

    Range [0, 1]; higher is sparser, 1 where nothing changed. NaN where a pixel is.

    Args:
        inputs: Images x (N, C, ...), or features (N, F), which then are the pixels.
        counterfactuals: Images x' of the same shape.
        tolerance: Largest change that does not count, in pixel values. By default half a grey level of 8 bits for
            images in [0, 1].

    Returns:
        Shares (N,).

    Raises:
        ValueError: The shapes differ.

    Examples:
        >>> changed = torch.tensor([[[[0.0, 0.5], [0.0, 0.0]]]])
        >>> sparsity(torch.zeros(1, 1, 2, 2), changed)
        tensor([0.7500])
    """
    change = _change(inputs, counterfactuals, start_dim=2).abs()
    if inputs.dim() > 2:
        change = change.amax(1)
    shares = (change <= tolerance).to(change.dtype).mean(1)
    return shares.masked_fill(change.isnan().any(1), torch.nan)


@metric(better="higher")
def ssim(inputs: Tensor, counterfactuals: Tensor, *, data_range: float = 1.0) -> Tensor:
    r"""Structural similarity, averaged over all windows that lie within the image and over channels.

    .. math:: \frac{(2 \mu_x \mu_{x'} + c_1)(2 \sigma_{x x'} + c_2)}
                   {(\mu_x^2 + \mu_{x'}^2 + c_1)(\sigma_x^2 + \sigma_{x'}^2 + c_2)}

    Range [-1, 1], no unit; higher is more similar, 1 for equal images. Means and (co)variances are those of a Gaussian
    window of 11 × 11 pixels with deviation 1.5; c₁ and c₂ are (0.01 L)² and (0.03 L)² for a data range L (Wang et al.,
    2004, https://doi.org/10.1109/TIP.2003.819861).

    Args:
        inputs: Images x (N, C, H, W).
        counterfactuals: Images x' of the same shape.
        data_range: Greatest pixel value minus the least possible one.

    Returns:
        Similarities (N,).

    Raises:
        ValueError: The shapes differ, are not (N, C, H, W), or the images are smaller than the window.
    """
    check_same_shape(inputs=inputs, counterfactuals=counterfactuals)
    if inputs.dim() != 4 or min(inputs.shape[2:]) < _SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs images (N, C, H, W) of at least {_SSIM_WINDOW} × {_SSIM_WINDOW} pixels, "
            f"received {tuple(inputs.shape)}"
        )
    x, y = (images.flatten(0, 1)[:, None] for images in in_common_dtype(inputs, counterfactuals))
    # Variances are small differences of squares, which lose all digits where the pixels are far from 0.
    center = x.mean((2, 3), keepdim=True)
    x, y = x - center, y - center
    mean_x, mean_y = _windowed_mean(x), _windowed_mean(y)
    variance_x, variance_y = _windowed_mean(x * x) - mean_x**2, _windowed_mean(y * y) - mean_y**2
    covariance = _windowed_mean(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + center, mean_y + center
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    similarity = luminance * structure
    return similarity.reshape(len(inputs), -1).mean(1) if len(inputs) else similarity.new_zeros(0)


def _change(inputs: Tensor, counterfactuals: Tensor, start_dim: int = 1) -> Tensor:
    check_same_shape(inputs=inputs, counterfactuals=counterfactuals)
    start, end = in_common_dtype(inputs, counterfactuals)
    return (end - start).flatten(min(start_dim, inputs.dim() - 1))


def _lengths(vectors: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1)
    return lengths


def _windowed_mean(images: Tensor) -> Tensor:
    # Images (N, 1, H, W) under a Gaussian window at each place where it fits.
    offsets = torch.arange(_SSIM_WINDOW, dtype=images.dtype, device=images.device) - _SSIM_WINDOW // 2
    weights = torch.softmax(-(offsets**2) / (2 * _SSIM_DEVIATION**2), dim=0)
    return nn.functional.conv2d(images, torch.outer(weights, weights)[None, None])
