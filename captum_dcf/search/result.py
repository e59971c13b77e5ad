r"""What a search gives back: images, latents and, for every example, how its search ended."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_dcf.search.coordinates import Coordinates, encode

if TYPE_CHECKING:
    import pandas

__all__ = ["Counterfactual", "Status"]

PLAUSIBILITIES = ("start_log_probs", "end_log_probs", "start_percentiles", "end_percentiles")
FORMAT = "captum_dcf counterfactuals 3"


class Status(IntEnum):
    r"""How the search of one example ended."""

    FOUND = 0
    """The goal was reached."""
    ALREADY_THERE = 1
    """The input itself reaches the goal; it is returned unchanged."""
    STEP_LIMIT = 2
    """The step limit came first; the best image on the way is returned."""
    STALLED = 3
    """The gradient vanished, a step no longer changed the point, or there was nothing more to try; the best image on
    the way is returned."""
    NOT_FINITE = 4
    """Images, outputs or gradients stayed infinite or NaN however small the step; the best finite image is returned."""
    NOT_RECONSTRUCTED = 5
    """The generator cannot represent the input: the model changes its mind on the reconstruction. It is returned, or
    with ``search_unreconstructed=True`` what the search found from there."""
    TIME_LIMIT = 6
    """The time limit came first; the best image on the way is returned."""


@dataclass(frozen=True, eq=False, repr=False)
class Counterfactual:
    r"""Counterfactuals of N inputs.

    Attributes:
        inputs: x, (N, ...).
        counterfactuals: x', of the inputs' shape; where the search failed, the best image on the way, always finite.
            Best means of highest score among those of the search; x itself may score higher than all of them, where a
            generator is approximate.
        reconstructions: decode(encode(x)), or decode(latents) where start latents were given, of the inputs' shape; for
            searches in pixels x itself, with pixels that are beyond a bound of the range, or almost at it, put there.
        status: A :class:`Status` per example, int64 (N,).
        reached: Whether x' reaches the goal, bool (N,). So it is for those FOUND and ALREADY_THERE, and it may be for
            those NOT_RECONSTRUCTED.
        steps: Steps tried, each of them one image judged, int64 (N,).
        start_scores: The goal's score of the inputs, (N,): for a class its probability; higher is nearer the goal.
        reconstruction_scores: The goal's score of the reconstructions, (N,): what the generator alone has changed.
        end_scores: The goal's score of the counterfactuals, (N,).
        overshoot: How far the decode of x' reached beyond the data range before it was clamped: the pixel furthest
            beyond, as a share of the range, (N,). 0 for data without bounds.
        start_log_probs: Log q of x under the generator in nats, (N,); None where it has no density.
        end_log_probs: Log q of x', (N,), or None likewise.
        start_percentiles: The share of the generator's training images, in per cent, that are less plausible to it than
            x, (N,) in [0, 100]; None where its support is not known, see ``measure_support``.
        end_percentiles: The same of x', (N,), or None likewise.
        start_latents: Where the search began, encode(x), (N, D); None for searches in pixels, see :meth:`with_latents`.
        end_latents: The latents that were decoded to the counterfactuals, (N, D), or None likewise. Where x was
            ALREADY_THERE they are those of the reconstruction.
        frames: With ``keep_path=True`` the finite images on the way of all examples, (F, ...), see :attr:`path`.
        frame_rows: The example that each frame belongs to, int64 (F,), ascending.
        about: Goal, target, method, generator, settings and versions, as far as JSON holds them.
    """

    inputs: Tensor
    counterfactuals: Tensor
    reconstructions: Tensor
    status: Tensor
    reached: Tensor
    steps: Tensor
    start_scores: Tensor
    reconstruction_scores: Tensor
    end_scores: Tensor
    overshoot: Tensor
    start_log_probs: Tensor | None = None
    end_log_probs: Tensor | None = None
    start_percentiles: Tensor | None = None
    end_percentiles: Tensor | None = None
    start_latents: Tensor | None = None
    end_latents: Tensor | None = None
    frames: Tensor | None = None
    frame_rows: Tensor | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        counts = Counter(status.name for status in self.statuses())
        by, goal = self.about.get("method", "a search"), self.about.get("goal", "its goal")
        shape = "×".join(map(str, self.inputs.shape[1:]))
        distance = self.attributions.flatten(1).norm(dim=1).median() if len(self) else float("nan")
        score, plausible = self.about.get("score", "score"), ""
        if self.start_percentiles is not None and self.end_percentiles is not None:
            start, end = _median(self.start_percentiles), _median(self.end_percentiles)
            plausible = f", plausibility {start:.0f} -> {end:.0f} %"
        return (
            f"{len(self)} counterfactuals {shape} by {by} to {goal}: "
            f"{', '.join(f'{count} {name}' for name, count in counts.most_common())}\n"
            f"medians: {_median(self.steps):.0f} steps, {score} {_median(self.start_scores):.3g} -> "
            f"{_median(self.end_scores):.3g}{plausible}, |x' - x| {distance:.3g}"
        )

    @property
    def attributions(self) -> Tensor:
        r"""x' - x, what ``attribute`` returns."""
        return self.counterfactuals - self.inputs

    @property
    def latent_change(self) -> Tensor:
        r"""x' minus the reconstruction: the part of x' - x that the search is responsible for."""
        return self.counterfactuals - self.reconstructions

    @property
    def reconstruction_error(self) -> Tensor:
        r"""The reconstruction minus x: the part of x' - x that the generator is responsible for."""
        return self.reconstructions - self.inputs

    @property
    def path(self) -> list[Tensor] | None:
        r"""With ``keep_path=True`` the images on the way of each example, N tensors (steps + 1 or fewer, ...).

        Each begins with the reconstruction. It ends with x' where the goal was reached by a method that stops there;
        the sparse methods and sampling go on for a nearer image, which is one of the frames. With ``refine=True`` the
        refined x' is one more frame. Candidates that were not finite are left out; an example that did not search has
        no image.
        """
        if self.frames is None or self.frame_rows is None:
            return None
        counts = torch.bincount(self.frame_rows, minlength=len(self))
        return list(self.frames.split(counts.tolist()))

    def statuses(self) -> list[Status]:
        r"""The status of each example by name."""
        return [Status(value) for value in self.status.tolist()]

    def with_latents(self, generator: Coordinates) -> Counterfactual:
        r"""The result with the latents of x and x' in the coordinates of a generator, for searches that had none.

        Raises:
            TypeError: It is no generator.
            ValueError: It is not ready for it, or cannot encode such images.
        """
        if not isinstance(generator, Coordinates) or isinstance(generator, type):
            raise TypeError(f"with_latents needs a captum_dcf Generator, received {type(generator).__name__}")
        generator.check_ready()
        with torch.no_grad(), generator.constant():
            start, end = encode(generator, self.inputs), encode(generator, self.counterfactuals)
        return replace(self, start_latents=start, end_latents=end)

    def save(self, path: str | Path) -> None:
        r"""Writes all tensors, and ``about`` as JSON in the metadata, to a safetensors file.

        Raises:
            OSError: It cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        tensors = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "about"}
        # Copies, since two fields may share their memory, which the format does not know.
        copies = {
            name: value.detach().cpu().contiguous().clone() for name, value in tensors.items() if value is not None
        }
        metadata = {"format": FORMAT, "about": json.dumps(self.about, ensure_ascii=False)}
        path = Path(path)
        try:
            save_file(copies, path, metadata)
        except SafetensorError as error:
            raise OSError(f"cannot write {str(path)!r}: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> Counterfactual:
        r"""Reads what :meth:`save` wrote; tensors come on the CPU.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file holds something else.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no saved counterfactuals at {str(path)!r}")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata.get("format") != FORMAT:
                raise ValueError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
            result = cls(**tensors, about=json.loads(metadata.get("about", "{}")))
            _check_whole(result)
        except (TypeError, ValueError, SafetensorError) as error:
            raise ValueError(f"{str(path)!r} does not hold saved counterfactuals: {error}") from error
        return result

    def to_frame(self) -> pandas.DataFrame:
        r"""One row per example: status, reached, steps, scores and Euclidean distances; needs pandas."""
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_frame needs pandas: pip install pandas") from error

        columns = {
            "status": [status.name for status in self.statuses()],
            "reached": self.reached.tolist(),
            "steps": self.steps.tolist(),
            "start_score": self.start_scores.tolist(),
            "reconstruction_score": self.reconstruction_scores.tolist(),
            "end_score": self.end_scores.tolist(),
            "overshoot": self.overshoot.tolist(),
            "l2_input": self.attributions.flatten(1).norm(dim=1).tolist(),
            "l2_reconstruction": self.reconstruction_error.flatten(1).norm(dim=1).tolist(),
        }
        for name in PLAUSIBILITIES:
            values = getattr(self, name)
            columns |= {} if values is None else {name[:-1]: values.tolist()}
        if self.start_latents is not None and self.end_latents is not None:
            columns["l2_latent"] = (self.end_latents - self.start_latents).norm(dim=1).tolist()
        return pandas.DataFrame(columns)

    @classmethod
    def concatenate(cls, parts: Iterable[Counterfactual]) -> Counterfactual:
        r"""One result from those of several calls, in their order; of ``about`` what all have in common.

        Raises:
            ValueError: There is none, or they differ in the shape of their images, or only some of them have latents or
                a path.
        """
        parts = [parts] if isinstance(parts, Counterfactual) else list(parts)
        if not all(isinstance(part, Counterfactual) for part in parts):
            raise TypeError(f"only results can be concatenated, received {sorted({type(p).__name__ for p in parts})}")
        if not parts:
            raise ValueError("there must be one result or more to concatenate, received none")
        joined = {one.name: _joined(one.name, parts) for one in fields(cls) if one.name not in ("frame_rows", "about")}
        rows, before = [], 0
        for part in parts:
            if part.frame_rows is not None:
                rows.append(part.frame_rows + before)
            before += len(part)
        about = {key: value for key, value in parts[0].about.items() if all(p.about.get(key) == value for p in parts)}
        return cls(**joined, frame_rows=torch.cat(rows) if rows else None, about=about)


def _joined(name: str, parts: list[Counterfactual]) -> Any:
    values = [getattr(part, name) for part in parts]
    if all(value is None for value in values):
        return None
    if any(value is None for value in values):
        raise ValueError(f"results with and without {name} cannot be one")
    shapes = sorted({tuple(value.shape[1:]) for value in values})
    if len(shapes) > 1:
        raise ValueError(f"results whose {name} have different shapes cannot be one: {shapes}")
    return torch.cat(values)


def _median(values: Tensor) -> float:
    # On the CPU: not every device has double precision.
    return float(values.cpu().double().median()) if len(values) else float("nan")


def _check_whole(result: Counterfactual) -> None:
    """Raises a ValueError for tensors that are not those of one search."""
    n, images = len(result.inputs), tuple(result.inputs.shape)
    wanted = dict.fromkeys(("counterfactuals", "reconstructions"), images)
    known = [name for name in PLAUSIBILITIES if getattr(result, name) is not None]
    scores = ("start_scores", "reconstruction_scores", "end_scores", "overshoot", *known)
    wanted |= dict.fromkeys(("status", "reached", "steps", *scores), (n,))
    for name in ("start_latents", "end_latents"):
        latents = getattr(result, name)
        wanted |= {} if latents is None else {name: (n, latents.shape[-1] if latents.ndim else 0)}
    if result.frames is not None:
        wanted |= {"frames": (len(result.frames), *images[1:]), "frame_rows": (len(result.frames),)}
    elif result.frame_rows is not None:
        raise ValueError("frame_rows without frames")
    kinds = {"status": torch.int64, "reached": torch.bool, "steps": torch.int64, "frame_rows": torch.int64}
    for name, shape in wanted.items():
        value = getattr(result, name)
        received = None if value is None else tuple(value.shape)
        if received != shape:
            raise ValueError(f"{name} should have the shape {shape} beside inputs {images}, received {received}")
        if value.dtype != kinds.get(name, value.dtype):
            raise ValueError(f"{name} should be {kinds[name]}, received {value.dtype}")
    if not set(result.status.tolist()) <= {int(status) for status in Status}:
        raise ValueError(f"status should hold the numbers of {[status.name for status in Status]}")
    if result.frame_rows is not None:
        rows = result.frame_rows
        if ((rows < 0) | (rows >= n)).any() or (rows.diff() < 0).any():
            raise ValueError(f"frame_rows should ascend from 0 to {n - 1} at most")
    if not isinstance(result.about, dict):
        raise ValueError(f"about should be a dict, received {type(result.about).__name__}")
