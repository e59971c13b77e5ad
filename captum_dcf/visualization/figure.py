r"""Pictures of counterfactuals: input, reconstruction, counterfactual and their difference, on one scale."""

from __future__ import annotations

import operator
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from captum_dcf.search.result import Counterfactual
from captum_dcf.visualization.captions import end_caption, start_caption
from captum_dcf.visualization.notebook import NotebookFigure

__all__ = ["counterfactual_figure"]

# Of a panel: images of more than 115 pixels are drawn larger, up to a page that can still be printed.
INCHES, PIXELS_PER_INCH, MOST_INCHES = 1.15, 100, 2.5
ROWS = 8
# Rows that the bar of colours is as high as, at most.
BAR_ROWS = 6
# Characters that fit above a panel, and beside it; of a longer label three lines are shown.
TITLE_WIDTH, LABEL_WIDTH = 18, 16


def counterfactual_figure(
    results: Counterfactual | Mapping[str, Counterfactual],
    rows: Iterable[int] | None = None,
    row_labels: Sequence[str] | None = None,
    data_range: tuple[float, float] | None = (0.0, 1.0),
    scores: Sequence[tuple[float, float]] | None = None,
) -> Figure:
    r"""A figure with one row per example: x, its reconstruction, and for each method x' and x' - x.

    Below x and x' stand the score, by its name where the result says it (``about["score"]``), steps or status, the
    percentile of the plausibility where it is known, and how far x' was decoded beyond the range where that is more
    than 0.05 of it.

    All differences share one scale, symmetric about zero, so that their strength can be compared between examples and
    methods; red is added, blue is taken away. The scale ends where the largest difference does. Of three channels each
    pixel shows the one that changes most.

    Args:
        results: A result, or several by the name of the method, all of the same inputs, images (N, C, H, W) with one or
            three channels.
        rows: Which examples to show, from 0 to N - 1, a sequence or a tensor; the first eight by default.
        row_labels: What to write beside each of them.
        data_range: Pixel values drawn as black and white; None, for images without bounds, for the least and greatest
            value that is drawn.
        scores: What to write in place of the scores of x and x' of each row, such as values in their unit; for a single
            result.

    Returns:
        The figure; ``figure.savefig(path)`` writes it.

    Raises:
        TypeError: Something else than results, or rows that are no numbers of examples.
        ValueError: No results, no rows, rows that are not there, labels for another number of rows, results of
            different inputs, or images with another number of channels.
    """
    results = {"": results} if isinstance(results, Counterfactual) else results
    _check(results)
    index = _index(rows, len(next(iter(results.values()))))
    if row_labels is not None and len(row_labels) != len(index):
        raise ValueError(f"row_labels must have one label per row, received {len(row_labels)} for {len(index)} rows")
    if scores is not None and (len(scores) != len(index) or len(results) > 1):
        received = f"received {len(scores)} for {len(index)} rows of {len(results)}"
        raise ValueError(f"scores must be one pair per row of one result, {received}")
    shown = {str(name): _Shown(result, index, scores) for name, result in results.items()}
    first = next(iter(shown.values()))
    limit = max(float(np.abs(part.difference).max()) for part in shown.values()) or 1.0
    columns = 2 + 2 * len(shown)
    inches = min(max(INCHES, max(first.inputs.shape[1:3]) / PIXELS_PER_INCH), MOST_INCHES)
    figure = NotebookFigure(figsize=(inches * columns + 1.2, inches * len(index) + 0.8), layout="constrained")
    axes = figure.subplots(len(index), columns, squeeze=False)
    grey = Normalize(*(_extremes(shown.values()) if data_range is None else data_range))
    for row, row_axes in enumerate(axes):
        _draw(row_axes[0], first.inputs[row], grey)
        row_axes[0].set_xlabel(first.start_captions[row], fontsize=7, labelpad=2, parse_math=False)
        _draw(row_axes[1], first.reconstructions[row], grey)
        for method, part in enumerate(shown.values()):
            _draw(row_axes[2 + 2 * method], part.counterfactuals[row], grey)
            differences = row_axes[3 + 2 * method].imshow(part.difference[row], cmap="RdBu_r", vmin=-limit, vmax=limit)
            row_axes[2 + 2 * method].set_xlabel(part.captions[row], fontsize=7, labelpad=2, parse_math=False)
        if row_labels is not None:
            label = textwrap.fill(str(row_labels[row]), LABEL_WIDTH, max_lines=3, placeholder="…")
            row_axes[0].set_ylabel(label, fontsize=8, parse_math=False)
    methods = [title for name in shown for title in (f"x'\n{textwrap.fill(name, TITLE_WIDTH)}".rstrip(), "x' − x")]
    for axis, title in zip(axes[0], ["x", "reconstruction", *methods]):
        axis.set_title(title, fontsize=8, parse_math=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    # Beside many rows the bar stands at the first of them.
    shrink = min(0.8, BAR_ROWS / len(index))
    figure.colorbar(
        differences, ax=axes, shrink=shrink, anchor=(0, 0.5 if shrink == 0.8 else 1), aspect=30, label="x' − x"
    )
    return figure


class _Shown:
    """The rows of a result that are drawn, as arrays (rows, H, W, C), and differences (rows, H, W)."""

    def __init__(self, result: Counterfactual, index: list[int], scores: Sequence[tuple[float, float]] | None) -> None:
        self.inputs = _as_array(result.inputs[index])
        self.reconstructions = _as_array(result.reconstructions[index])
        self.counterfactuals = _as_array(result.counterfactuals[index])
        self.difference = _strongest(_as_array(result.attributions[index]))
        pairs = scores or [*zip(result.start_scores[index].tolist(), result.end_scores[index].tolist())]
        self.start_captions = [start_caption(result, row, pair[0]) for row, pair in zip(index, pairs)]
        self.captions = [end_caption(result, row, pair[1]) for row, pair in zip(index, pairs)]


def _index(rows: Iterable[int] | None, count: int) -> list[int]:
    if rows is None:
        return list(range(min(ROWS, count)))
    if not isinstance(rows, Iterable):
        raise TypeError(f"rows must be several numbers of examples, such as [0, 3], received {rows!r}")
    numbers = rows.tolist() if isinstance(rows, (Tensor, np.ndarray)) else list(rows)
    if any(isinstance(row, bool) for row in numbers):
        raise TypeError(f"rows must be numbers of examples, such as [0, 3], received {numbers}")
    try:
        index = [operator.index(row) for row in numbers]
    except TypeError as error:
        raise TypeError(f"rows must be numbers of examples, such as [0, 3], received {numbers}") from error
    if not index:
        raise ValueError("there must be at least one row to draw, received none")
    if not all(0 <= row < count for row in index):
        raise ValueError(f"rows must be from 0 to {count - 1}, received {index}")
    return index


def _extremes(parts: Iterable[_Shown]) -> tuple[float, float]:
    drawn = [images for part in parts for images in (part.inputs, part.reconstructions, part.counterfactuals)]
    finite = np.concatenate([images[np.isfinite(images)] for images in drawn])
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


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
    for name, result in results.items():
        if not isinstance(result, Counterfactual):
            raise TypeError(f"{name!r} must be a Counterfactual, received {type(result).__name__}")
    shapes = {tuple(result.inputs.shape) for result in results.values()}
    if len(shapes) > 1:
        raise ValueError(f"all results must be of the same inputs, received the shapes {sorted(shapes)}")
    first, *others = results.values()
    if not all(torch.equal(first.inputs, other.inputs) for other in others):
        raise ValueError("all results must be of the same inputs, received results of different images")
    [shape] = shapes
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise ValueError(f"images must have the shape (N, 1, H, W) or (N, 3, H, W), received {shape}")
