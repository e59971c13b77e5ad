r"""One call: what is asked of which model about which files, what is to be known before, the search, and its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_dcf.attr import DiffeomorphicCounterfactual
from captum_dcf.data.files import write_image
from captum_dcf.explain.fullsize import at_full_size, shown_at_full_size
from captum_dcf.explain.question import Question, output_kind
from captum_dcf.explain.report import Row, printable
from captum_dcf.explain.shown import Shown
from captum_dcf.generators.support import plausibility
from captum_dcf.search import Counterfactual, Goal, Model
from captum_dcf.search.model import OutputKind

__all__ = ["Case"]

# Images that the model is asked about at a time, outside of the search.
BATCH = 64
# Images that are less plausible than all but so many per cent of the training images are warned of.
UNUSUAL = 1.0


@dataclass(frozen=True, eq=False)
class Case:
    r"""Files that are explained.

    Attributes:
        question: What is asked.
        shown: The model, as it is shown images of the generator.
        generator: Coordinates of the search.
        files: The image files.
        sizes: Height and width of each.
        images: The files as the generator takes them, (N, C, H, W).
        output: What the model gives of classes; None to tell it by shape and values.
    """

    question: Question
    shown: Shown
    generator: Any
    files: Sequence[Path]
    sizes: Sequence[tuple[int, int]]
    images: Tensor
    output: OutputKind | None = None

    @cached_property
    def kind(self) -> OutputKind | None:
        r"""What the output of classes is; None for values."""
        if not self.question.of_classes:
            return None
        return self.output or output_kind(self._asked(self.shown, self.images, None))

    @cached_property
    def seen(self) -> Tensor:
        r"""The output for the images: logits (N, C), or values."""
        return self._asked(self.shown, self.images, self.kind)

    @cached_property
    def goal(self) -> Goal:
        r"""The goal of the search."""
        return self.question.goal(self.seen)

    def check(self) -> None:
        r"""Refuses a question that does not fit the model.

        Raises:
            ValueError: The model has another number of classes than there are names, or the goal does not fit it.
        """
        Model(self.shown, len(self.images), kind=self.kind).check(self.seen)
        self.question.check(self.seen)
        self.goal.check(self.question.meant(self.seen))

    def notes(self) -> list[str]:
        r"""What is to be known before the search, line by line."""
        return [self._size_note(), self._model_note(), *self._unusual]

    def search(self, max_steps: int | None, show_progress: bool) -> Counterfactual:
        r"""The result, at the size of the generator."""
        method = DiffeomorphicCounterfactual(self.shown, self.generator, output=self.kind or "logits")
        result = method.counterfactual(
            self.images,
            **self.question.asked(self.seen),
            max_steps=max_steps,
            internal_batch_size="auto",
            show_progress=show_progress,
        )
        about = {**result.about, "score": self.question.score}
        if self.question.of_classes and self.question.names:
            about["class_names"] = list(self.question.names)
        return replace(result, about=about)

    def write(self, result: Counterfactual, paths: Sequence[Path]) -> list[Row]:
        r"""Writes x' of each file, at its size, and says of each what was found."""
        everyone = torch.arange(len(self.files), device=self.images.device)
        starts = self.question.numbers(self.goal, self.seen, everyone)
        ends = self.question.numbers(self.goal, self._asked(self.shown, result.counterfactuals, self.kind), everyone)
        words = self.question.seen(self.seen)
        columns = {
            "start_log_prob": "start_log_probs",
            "end_log_prob": "end_log_probs",
            "start_percentile": "start_percentiles",
            "end_percentile": "end_percentiles",
            "overshoot": "overshoot",
        }
        known = {name: _column(result, of, len(paths)) for name, of in columns.items()}
        rows = []
        for row, path in enumerate(paths):
            full_start, full_end, full_reached = self._write_one(row, result, path)
            rows.append(
                Row(
                    file=str(self.files[row]),
                    counterfactual=path.name,
                    status=result.statuses()[row].name,
                    reached=bool(result.reached[row]),
                    steps=int(result.steps[row]),
                    seen_as=words[row],
                    start=starts[row],
                    end=ends[row],
                    full_start=full_start,
                    full_end=full_end,
                    full_reached=full_reached,
                    **{name: column[row] for name, column in known.items()},
                )
            )
        return rows

    def _write_one(
        self, row: int, result: Counterfactual, path: Path
    ) -> tuple[float | None, float | None, bool | None]:
        """Writes x' of one file; where that has another size than the generator, the numbers of both at that size, and
        whether x' reaches the goal there.
        """
        counterfactual = self._pixels(result.counterfactuals[row])
        if self.sizes[row] == tuple(self.images.shape[2:]):
            write_image(counterfactual, path)
            return None, None, None
        change = counterfactual - self._pixels(result.inputs[row])
        image, full = at_full_size(self.files[row], self.sizes[row], change)
        write_image(full[0], path)
        rows = torch.full((2,), row, device=self.images.device)
        pair = torch.cat((image, full)).to(self.images)
        output = self._asked(self._shown_full, pair, self.kind)
        start, end = self.question.numbers(self.goal, output, rows)
        return start, end, bool(self.goal.judge(self.question.meant(output), rows).reached[1])

    @cached_property
    def _shown_full(self) -> Shown:
        return shown_at_full_size(self.shown, self.sizes, self._pixels(self.images[:1]))

    def _pixels(self, images: Tensor) -> Tensor:
        """Images of the generator with pixels in [0, 1]."""
        low, high = self.generator.data_range or (0.0, 1.0)
        return (images - low) / (high - low)

    @torch.no_grad()
    def _asked(self, shown: Shown, images: Tensor, kind: OutputKind | None) -> Tensor:
        model = Model(shown, len(images), kind=kind)
        return torch.cat([model(batch) for batch in images.split(BATCH)])

    def _size_note(self) -> str:
        height, width = self.images.shape[2:]
        smallest, largest = min(self.sizes), max(self.sizes)
        sizes = _size(smallest) + (f" to {_size(largest)}" if largest != smallest else "")
        count = f"{len(self.files)} image{'s' if len(self.files) > 1 else ''} of {sizes} pixels (height × width)"
        if smallest == largest == (height, width):
            return f"{count}, the size of the generator"
        again = self._shown_full.size
        asked = "as they are" if again is None else f"resized to {_size(again)}"
        return (
            f"{count}, resized to {_size((height, width))} for the generator; the change is added back at full size, "
            f"and the model is asked again, about images {asked}"
        )

    def _model_note(self) -> str:
        pixels = self._pixels(self.images)
        size = self.shown.size or tuple(self.images.shape[2:])
        colour = "colour" if self.images.shape[1] == 3 or self.shown.in_colour else "grey"
        mean_and_deviation = (
            "as they are; if it expects standardised pixels, say so (normalize)"
            if self.shown.normalize is None
            else "standardised by mean {} and deviation {}".format(*self.shown.normalize)
        )
        return (
            f"the model is shown {_size(size)} pixels in {colour}, values from {float(pixels.min()):.2f} to "
            f"{float(pixels.max()):.2f} {mean_and_deviation}"
        )

    @cached_property
    def _unusual(self) -> list[str]:
        """Warnings of images that the generator does not know the like of."""
        support = getattr(self.generator, "support", None)
        if support is None:
            return []
        _, values = plausibility(self.generator, self.images)
        is_density = support.of == "log_prob"
        what = "log q is below that of" if is_density else "its latent is longer than those of"
        return [
            f"{printable(str(path))}: {what} 99 % of the training images: the generator does not know such images. Is "
            "it a photo of another kind, or dark on light where it learned light on dark?"
            for path, percentile in zip(self.files, support.percentile(values).tolist())
            # Written so that NaN is unusual, too.
            if not percentile >= UNUSUAL
        ]


def _column(result: Counterfactual, name: str, rows: int) -> list[float | None]:
    values = getattr(result, name)
    return [None] * rows if values is None else values.tolist()


def _size(size: Sequence[int]) -> str:
    return "×".join(map(str, size))
