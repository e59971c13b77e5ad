r"""Which part of an output a target names, for outputs with more dimensions than one of classes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ACCEPTED", "select_classes", "select_outputs"]

ACCEPTED = (
    "an int, a tensor of one integer, a list or 1-D tensor of one integer per example, "
    "or, for outputs with more dimensions, a tuple of ints or a list of one tuple per example"
)


def select_classes(targets: Tensor, output: Tensor, rows: Tensor) -> Tensor:
    r"""The scores of all classes at the place each target names: (N, K), (n, C, ...) and (n,) to (n, C)."""
    _check_dimensions(output, targets)
    # Of all examples, so that a wrong one is refused before any is searched.
    _check_range(targets[:, 1:], output.shape[2:], output)
    indices = targets[rows]
    each = torch.arange(len(output), device=output.device)
    places = (each, *indices[:, 1:].unbind(1))
    return output.movedim(1, -1)[places]


def select_outputs(targets: Tensor, output: Tensor, rows: Tensor) -> Tensor:
    r"""The value each target names, as Captum selects it: (N, K), (n, ...) and (n,) to (n,)."""
    _check_dimensions(output, targets)
    _check_range(targets, output.shape[1:], output)
    indices = targets[rows]
    each = torch.arange(len(output), device=output.device)
    place = (each, *indices.unbind(1))
    return output[place]


def _check_dimensions(output: Tensor, indices: Tensor) -> None:
    if output.ndim == 1:
        raise ValueError(f"an output of shape {tuple(output.shape)} is one value per example: leave the target out")
    if output.ndim != indices.shape[1] + 1:
        raise ValueError(
            f"an output of shape {tuple(output.shape)} needs targets of {output.ndim - 1} indices each, "
            f"received {indices.shape[1]}; accepted are {ACCEPTED}"
        )


def _check_range(indices: Tensor, sizes: torch.Size, output: Tensor) -> None:
    # Negative ones count from the end, as in Captum. Checked here since a GPU that indexes out of range is lost.
    limits = torch.tensor(sizes, device=indices.device)
    if ((indices < -limits) | (indices >= limits)).any():
        raise ValueError(f"target is out of range for an output of shape {tuple(output.shape)}")
