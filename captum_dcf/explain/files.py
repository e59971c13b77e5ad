r"""Image files explained: read, searched from, and written with a picture, a table and a report."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure
from torch import nn

from captum_dcf.attr._modules import check_modules, modules_of
from captum_dcf.data.files import open_image, read_images
from captum_dcf.explain.case import Case
from captum_dcf.explain.places import checked_device, generator_and_shape, image_files, model_and_names
from captum_dcf.explain.question import Question
from captum_dcf.explain.report import Row, as_csv, as_markdown, line, printable, summary
from captum_dcf.explain.shown import Normalize, fitted
from captum_dcf.outputs import new_files
from captum_dcf.search import Counterfactual, Goal
from captum_dcf.search.model import OutputKind
from captum_dcf.visualization import counterfactual_figure

__all__ = ["explain_files"]

RESULT, PICTURE = "counterfactuals.safetensors", "counterfactuals.png"
TABLE, REPORT = "counterfactuals.csv", "report.md"
# A picture of more rows takes minutes to draw.
ROWS = 50


def explain_files(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    model: str = "mnist-cnn",
    generator: str = "mnist-glow",
    target: int | str | None = None,
    leave: bool = False,
    value: Goal | None = None,
    labels: Sequence[str] = (),
    unit: str = "output",
    confidence: float | None = None,
    normalize: Normalize | None = None,
    model_size: int | None = None,
    output: OutputKind | None = None,
    max_steps: int | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    show_progress: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> str:
    r"""Counterfactuals of image files, by :class:`~captum_dcf.DiffeomorphicCounterfactual`.

    Images are resized, not cropped, for the generator, and x' is written at the size of its file: the image plus the
    resized change x' - x. Into ``out`` come x' of each file as ``STEM-to-TARGET.png``, ``counterfactuals.png`` of the
    first 50, ``counterfactuals.csv``, ``report.md`` and the result, ``counterfactuals.safetensors``, at the generator's
    size: all of them, or none where something fails.

    Args:
        paths: Image files, and folders of them, see :func:`captum_dcf.explain.places.image_files`.
        out: Folder to write to; made if there is none.
        model: Classifier or regressor, see :func:`captum_dcf.loading.load_model`. It is shown pixels from 0 to 1.
        generator: Generator, see :func:`captum_dcf.loading.load_generator`.
        target: The class to reach, by number or name; with ``value`` the number of the output that it speaks of.
        leave: To reach any class but the one that the model sees.
        value: The value to reach, ``AtLeast``, ``AtMost`` or ``Near``.
        labels: Names of the classes, in their order; by default those that the card of the model has.
        unit: Of values, such as "nuclei".
        confidence: Λ, the probability above which a class counts as reached or left; 0.99 by default.
        normalize: Mean and standard deviation that the model expects, see
            :func:`captum_dcf.explain.shown.parse_normalize`.
        model_size: Height and width of the square images that the model expects. By default it is asked: a model that
            takes any size is shown the generator's.
        output: What the model gives of classes; by default seen from its shape and values, see
            :func:`captum_dcf.explain.question.output_kind`.
        max_steps: Most steps of one image.
        device: Where to search: cpu, cuda or mps.
        overwrite: Whether files of an earlier call may be replaced; files of ``paths`` never are.
        show_progress: Show a progress bar.
        say: Is given what is to be known before the search, line by line: sizes, the range of pixels, and images that
            the generator finds less plausible than 99 % of its training images.

    Returns:
        One line per file: what the model sees, how the search ended, the probability of the target or the value before
        and after, the percentile of log q of x and x'; and one line for all.

    Raises:
        FileNotFoundError: An image, a model or its folder is not there.
        FileExistsError: A file to be written is there already.
        ImportError: No such module or function is found.
        TypeError: An argument of a kind that is not accepted.
        ValueError: A file is no image, what is named is no model or no generator, the two do not fit, or the goal does
            not fit the model.
    """
    files, place = image_files(paths), checked_device(device)
    coordinates, shape = generator_and_shape(generator)
    function, gives_values, names = model_and_names(model)
    question = Question(target, leave, value, confidence, labels or names, unit)
    if gives_values and question.of_classes:
        raise ValueError(f"{model!r} gives values, not classes: say a value to reach (at least, at most or near)")
    # Before it is asked anything: batch norm in training mode would learn from the question.
    check_modules(modules_of(function))
    for part in (function, coordinates):
        if isinstance(part, nn.Module):
            part.to(place)
    images, bounds = read_images(files, shape).to(place), coordinates.data_range
    images = images if bounds is None else bounds[0] + (bounds[1] - bounds[0]) * images
    shown = fitted(function, images[:1], bounds, normalize, model_size)
    sizes = [(image.height, image.width) for image in map(open_image, files)]
    case = Case(question, shown, coordinates, files, sizes, images, output)
    case.check()
    pictures = [f"{stem}-{question.suffix}.png" for stem in _different([path.stem for path in files])]
    with new_files(Path(out), [RESULT, PICTURE, TABLE, REPORT, *pictures], files, overwrite) as folder:
        for note in case.notes():
            say(note)
        result = case.search(max_steps, show_progress)
        result = replace(result, about={**result.about, "model": model, "generator": generator})
        result.save(folder / RESULT)
        rows = case.write(result, [folder / name for name in pictures])
        _save_figure(_figure(result, rows, bounds), folder / PICTURE)
        (folder / TABLE).write_text(as_csv(rows), encoding="utf-8")
        (folder / REPORT).write_text(as_markdown(rows, question.score, case.notes(), PICTURE), encoding="utf-8")
    return "\n".join([*(line(row, question.score) for row in rows), summary(rows)])


def _different(stems: Sequence[str]) -> list[str]:
    """The stems, numbered where one comes again, also in other letters: many file systems do not tell a from A."""
    numbered: list[str] = []
    taken: set[str] = set()
    for stem in stems:
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        numbered.append(name)
    return numbered


def _figure(result: Counterfactual, rows: Sequence[Row], data_range: tuple[float, float] | None) -> Figure:
    shown = rows[:ROWS]
    return counterfactual_figure(
        result,
        range(len(shown)),
        [printable(Path(row.file).name) for row in shown],
        data_range,
        [(row.start, row.end) for row in shown],
    )


def _save_figure(figure: Figure, path: Path) -> None:
    with warnings.catch_warnings():
        # What the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        figure.savefig(path, dpi=150)
