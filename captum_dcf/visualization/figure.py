r"""Pictures of counterfactuals: input, reconstruction, counterfactual and their difference, on one scale."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from captum_dcf.search.result import Counterfactual

__all__ = ["counterfactual_figure"]

INCHES = 1.15
ROWS = 8
# Characters that fit above a panel.
TITLE_WIDTH = 18


def counterfactual_figure(
    results: Counterfactual | Mapping[str, Counterfactual],
    rows: Sequence[int] | None = None,
    row_labels: Sequence[str] | None = None,
    data_range: tuple[float, float] = (0.0, 1.0),
) -> Figure:
    r"""A figure with one row per example: x, its reconstruction, and for each method x' and x' - x.

    All differences share one scale, symmetric about zero, so that their strength can be compared between examples and
    methods; red is added, blue is taken away. The scale ends where the largest difference does. Of three channels each
    pixel shows the one that changes most.

    Args:
        results: A result, or several by the name of the method, all of the same inputs, images (N, C, H, W) with one or
            three channels.
        rows: Which examples to show; the first eight by default.
        row_labels: What to write beside each of them.
        data_range: Pixel values drawn as black and white.

    Returns:
        The figure; ``figure.savefig(path)`` writes it.

    Raises:
        TypeError: Something else than results.
        ValueError: No results, no rows, results of different inputs, or images with another number of channels.
    """
    results = {"": results} if isinstance(results, Counterfactual) else results
    _check(results)
    rows = range(min(ROWS, len(next(iter(results.values()))))) if rows is None else rows
    if not len(rows):
        raise ValueError("there must be at least one row to draw, received none")
    shown = {name: _Shown(result, rows) for name, result in results.items()}
    first = next(iter(shown.values()))
    limit = max(float(np.abs(part.difference).max()) for part in shown.values()) or 1.0
    columns = 2 + 2 * len(shown)
    figure = Figure(figsize=(INCHES * columns + 1.2, INCHES * len(rows) + 0.8), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    grey = Normalize(*data_range)
    for row, row_axes in enumerate(axes):
        _draw(row_axes[0], first.inputs[row], grey)
        _draw(row_axes[1], first.reconstructions[row], grey)
        for method, part in enumerate(shown.values()):
            _draw(row_axes[2 + 2 * method], part.counterfactuals[row], grey)
            differences = row_axes[3 + 2 * method].imshow(part.difference[row], cmap="RdBu_r", vmin=-limit, vmax=limit)
            row_axes[2 + 2 * method].set_xlabel(part.captions[row], fontsize=7, labelpad=2)
        if row_labels is not None:
            row_axes[0].set_ylabel(row_labels[row], fontsize=9)
    methods = [title for name in shown for title in (f"x'\n{textwrap.fill(name, TITLE_WIDTH)}".rstrip(), "x' − x")]
    for axis, title in zip(axes[0], ["x", "reconstruction", *methods]):
        axis.set_title(title, fontsize=8)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.colorbar(differences, ax=axes, shrink=0.8, aspect=30, label="x' − x")
    return figure


class _Shown:
    """The rows of a result that are drawn, as arrays (rows, H, W, C), and differences (rows, H, W)."""

    def __init__(self, result: Counterfactual, rows: Sequence[int]) -> None:
        index = list(rows)
        self.inputs = _as_array(result.inputs[index])
        self.reconstructions = _as_array(result.reconstructions[index])
        self.counterfactuals = _as_array(result.counterfactuals[index])
        self.difference = _strongest(_as_array(result.attributions[index]))
        statuses = [result.statuses()[row].name.lower().replace("_", " ") for row in index]
        self.captions = [
            f"{score:.3f}, {steps} steps" if reached else f"{score:.3f}, {status}"
            for score, steps, reached, status in zip(
                result.end_scores[index].tolist(),
                result.steps[index].tolist(),
                result.reached[index].tolist(),
                statuses,
            )
        ]


def _as_array(images: Tensor) -> np.ndarray:
    return images.detach().cpu().permute(0, 2, 3, 1).float().numpy()


def _strongest(differences: np.ndarray) -> np.ndarray:
    channel = np.abs(differences).argmax(-1, keepdims=True)
    return np.take_along_axis(differences, channel, -1).squeeze(-1)


def _draw(axis: Axes, image: np.ndarray, norm: Normalize) -> None:
    if image.shape[-1] == 1:
        axis.imshow(image[..., 0], cmap="gray", norm=norm)
    else:
        axis.imshow(np.clip(norm(image), 0, 1))


def _check(results: Mapping[str, Counterfactual]) -> None:
    if not isinstance(results, Mapping):
        raise TypeError(f"results must be a Counterfactual or several by name, received {type(results).__name__}")
    if not results:
        raise ValueError("there must be at least one result to draw, received none")
    shapes = {tuple(result.inputs.shape) for result in results.values()}
    if len(shapes) > 1:
        raise ValueError(f"all results must be of the same inputs, received the shapes {sorted(shapes)}")
    first, *others = results.values()
    if not all(torch.equal(first.inputs, other.inputs) for other in others):
        raise ValueError("all results must be of the same inputs, received results of different images")
    [shape] = shapes
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise ValueError(f"images must have the shape (N, 1, H, W) or (N, 3, H, W), received {shape}")
