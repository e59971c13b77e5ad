r"""The spectrum of a generator as the paper draws it: squared singular values of the decoder, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from captum_dcf.visualization.notebook import NotebookFigure

__all__ = ["spectrum_figure"]


def spectrum_figure(singular_values: Mapping[str, Tensor]) -> Figure:
    r"""Eigenvalues of the inverse induced metric J Jᵀ, averaged over the examples, in descending order.

    The few large ones span the tangent space of the data manifold, the many small ones leave it (Dombrowski et al.,
    2024, https://arxiv.org/abs/2206.05075). A band holds the examples' lowest to highest value.

    Args:
        singular_values: By the name of a generator, σ of its decoder, (N, K) from
            :func:`captum_dcf.geometry.spectrum`.

    Returns:
        The figure; ``figure.savefig(path)`` writes it.

    Raises:
        TypeError: Something else than tensors by name.
        ValueError: Nothing to draw, or singular values that are not (N, K).
    """
    if not isinstance(singular_values, Mapping) or not all(isinstance(v, Tensor) for v in singular_values.values()):
        raise TypeError(f"singular_values must be tensors by name, received {type(singular_values).__name__}")
    if not singular_values:
        raise ValueError("there must be at least one spectrum to draw, received none")
    figure = NotebookFigure(figsize=(5, 3.6), layout="constrained")
    axis = figure.subplots()
    for values in singular_values.values():
        if values.ndim != 2 or values.numel() == 0:
            raise ValueError(f"singular values must have the shape (N, K), received {tuple(values.shape)}")
        eigenvalues = values.detach().cpu().double().square()
        ranks = range(1, eigenvalues.shape[1] + 1)
        (line,) = axis.loglog(ranks, eigenvalues.mean(0).numpy())
        low, high = eigenvalues.amin(0).numpy(), eigenvalues.amax(0).numpy()
        axis.fill_between(ranks, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
    axis.set(xlabel="rank", ylabel="eigenvalue of J Jᵀ")
    axis.grid(alpha=0.3)
    # Names are set afterwards: Matplotlib leaves out those that begin with an underscore, and takes "$" for formulas.
    legend = axis.legend(axis.lines, ["name"] * len(axis.lines), frameon=False)
    for text, name in zip(legend.get_texts(), singular_values):
        text.set(text=str(name), parse_math=False)
    return figure
