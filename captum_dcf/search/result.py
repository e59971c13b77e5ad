r"""What a search gives back: images, latents and, for every example, how its search ended."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas

__all__ = ["Counterfactual", "Status"]


class Status(IntEnum):
    r"""How the search of one example ended."""

    FOUND = 0
    """The goal was reached."""
    ALREADY_THERE = 1
    """The input itself reaches the goal; it is returned unchanged."""
    BEST_EFFORT = 2
    """The step limit came first; the best image on the way is returned."""
    STALLED = 3
    """The gradient vanished or a step no longer changed the latent, and no other attempt arrived before the step limit;
    the best image on the way is returned."""
    NOT_FINITE = 4
    """Decodes or gradients stayed infinite or NaN however small the step, and no other attempt arrived before the step
    limit; the best finite image is returned."""
    NOT_RECONSTRUCTED = 5
    """The generator cannot represent the input: the model changes its mind on the reconstruction, which is returned."""


@dataclass(frozen=True)
class Counterfactual:
    r"""Counterfactuals of a batch of N inputs.

    Attributes:
        inputs: x, (N, ...).
        counterfactuals: x', of the inputs' shape; where the search failed, the best image on the way, always finite.
        reconstructions: decode(encode(x)), of the inputs' shape.
        start_latents: encode(x), (N, D).
        end_latents: The latents of the counterfactuals, (N, D).
        status: A :class:`Status` per example, int64 (N,).
        steps: Latent steps tried, each of them one decode, int64 (N,).
        start_scores: The goal's score of the inputs, (N,): for a class its probability; higher is nearer the goal.
        end_scores: The goal's score of the counterfactuals, (N,).
        path: With ``keep_path=True`` the images on the way, (steps + 1, N, ...), beginning with the reconstructions; an
            example that has ended repeats its last image. Otherwise None.
    """

    inputs: Tensor
    counterfactuals: Tensor
    reconstructions: Tensor
    start_latents: Tensor
    end_latents: Tensor
    status: Tensor
    steps: Tensor
    start_scores: Tensor
    end_scores: Tensor
    path: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def attributions(self) -> Tensor:
        r"""x' - x, what ``attribute`` returns."""
        return self.counterfactuals - self.inputs

    @property
    def reached(self) -> Tensor:
        r"""Whether x' reaches the goal (FOUND or ALREADY_THERE), bool (N,)."""
        return (self.status == Status.FOUND) | (self.status == Status.ALREADY_THERE)

    @property
    def latent_change(self) -> Tensor:
        r"""x' minus the reconstruction: the part of x' - x that the search is responsible for."""
        return self.counterfactuals - self.reconstructions

    @property
    def reconstruction_error(self) -> Tensor:
        r"""The reconstruction minus x: the part of x' - x that the generator is responsible for."""
        return self.reconstructions - self.inputs

    def statuses(self) -> list[Status]:
        r"""The status of each example by name."""
        return [Status(value) for value in self.status.tolist()]

    def save(self, path: str | Path) -> None:
        r"""Writes all tensors to a safetensors file."""
        from safetensors.torch import save_file

        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        save_file({name: value.cpu().contiguous() for name, value in tensors.items() if value is not None}, path)

    @classmethod
    def load(cls, path: str | Path) -> Counterfactual:
        r"""Reads what :meth:`save` wrote; tensors come on the CPU.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file holds something else.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not Path(path).is_file():
            raise FileNotFoundError(f"no saved counterfactuals at {str(path)!r}")
        try:
            return cls(**load_file(path))
        except (TypeError, SafetensorError) as error:
            raise ValueError(f"{str(path)!r} does not hold saved counterfactuals: {error}") from error

    def to_frame(self) -> pandas.DataFrame:
        r"""One row per example: status, steps, scores and Euclidean distances; needs pandas."""
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_frame needs pandas: pip install pandas") from error

        return pandas.DataFrame(
            {
                "status": [status.name for status in self.statuses()],
                "steps": self.steps.tolist(),
                "start_score": self.start_scores.tolist(),
                "end_score": self.end_scores.tolist(),
                "l2_input": self.attributions.flatten(1).norm(dim=1).tolist(),
                "l2_latent": (self.end_latents - self.start_latents).norm(dim=1).tolist(),
                "l2_reconstruction": self.reconstruction_error.flatten(1).norm(dim=1).tolist(),
            }
        )

    @classmethod
    def concatenate(cls, parts: list[Counterfactual]) -> Counterfactual:
        r"""One result from those of consecutive batches."""
        joined = {
            field.name: torch.cat([getattr(part, field.name) for part in parts])
            for field in fields(cls)
            if field.name != "path"
        }
        return cls(**joined, path=_joined_paths([part.path for part in parts if part.path is not None]))


def _joined_paths(paths: list[Tensor]) -> Tensor | None:
    if not paths:
        return None
    longest = max(len(path) for path in paths)
    return torch.cat(
        [torch.cat((path, path[-1:].expand(longest - len(path), *path.shape[1:]))) for path in paths], dim=1
    )
