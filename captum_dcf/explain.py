r"""What the command ``explain`` does: counterfactuals of image files, written beside a picture of them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from captum_dcf import zoo
from captum_dcf.attr import DiffeomorphicCounterfactual
from captum_dcf.data.files import read_images, write_image
from captum_dcf.generators import Generator
from captum_dcf.outputs import new_files
from captum_dcf.search import Counterfactual
from captum_dcf.visualization import counterfactual_figure
from captum_dcf.zoo import Card

__all__ = ["explain_files"]

RESULT, PICTURE = "counterfactuals.safetensors", "counterfactuals.png"
# A picture of more rows takes minutes to draw.
ROWS = 50
# Images of the generator's own, to which the likelihood of a counterfactual is compared.
OWN_IMAGES = 32


def explain_files(
    paths: Sequence[Path], target: int, out: Path, model: str, generator: str, overwrite: bool = False
) -> str:
    r"""Counterfactuals of image files, by :class:`~captum_dcf.DiffeomorphicCounterfactual`.

    Into ``out`` come x' of each file as ``STEM-to-TARGET.png``, a picture of the first 50 and the result: all of them,
    or none where something fails.

    Args:
        paths: Image files, see :func:`captum_dcf.data.files.read_images`.
        target: The class to reach.
        out: Folder to write to; made if there is none.
        model: Classifier, by its name in the zoo or as DIR/NAME, where ``captum-dcf train`` wrote it into DIR.
        generator: Generator, by name or as DIR/NAME. Images are made to fit it.
        overwrite: Whether files of an earlier call may be replaced; files of ``paths`` never are.

    Returns:
        One line per file: what the model sees, how the search ended, the probability of ``target``, and log p of x and
        x' where the generator has a density.

    Raises:
        FileNotFoundError: An image, a model or its folder is not there.
        FileExistsError: A file to be written is there already.
        ValueError: A file is no image, ``model`` is no classifier or ``generator`` no generator, or the two do not fit.
    """
    coordinates, image_shape = _load_generator(generator)
    classifier = _load_classifier(model)
    images = read_images(paths, image_shape)
    names = [f"{stem}-to-{target}.png" for stem in _different([path.stem for path in paths])]
    with new_files(out, [RESULT, PICTURE, *names], paths, overwrite) as folder:
        result = DiffeomorphicCounterfactual(classifier, coordinates).counterfactual(images, target)
        result.save(folder / RESULT)
        for name, image in zip(names, result.counterfactuals):
            write_image(image, folder / name)
        rows = range(min(ROWS, len(paths)))
        figure = counterfactual_figure(result, rows, [_printable(path.name) for path in paths[:ROWS]])
        _save_figure(figure, folder / PICTURE)
        return "\n".join(_lines(paths, target, classifier, coordinates, result))


def _load_generator(name: str) -> tuple[Generator, Sequence[int]]:
    model, card = _load(name)
    if not isinstance(model, Generator):
        raise ValueError(f"{name!r} is no generator; one of the zoo is 'mnist-glow'")
    if "image_shape" not in card.arguments:
        raise ValueError(f"the card of {name!r} does not say image_shape, the shape of the images that it takes")
    return model, card.arguments["image_shape"]


def _load_classifier(name: str) -> Any:
    model, _ = _load(name)
    if isinstance(model, Generator) or not callable(model):
        raise ValueError(f"{name!r} is no classifier; one of the zoo is 'mnist-cnn'")
    return model


def _load(name: str) -> tuple[Any, Card]:
    """A model and its card, from the zoo or, as DIR/NAME, from a folder."""
    if "/" not in name and os.sep not in name:
        return zoo.load(name), zoo.read_card(name)
    path = Path(name)
    stem = path.stem if path.suffix in (".json", ".safetensors") else path.name
    return zoo.load(stem, path.parent), zoo.read_card(stem, path.parent)


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


def _printable(name: str) -> str:
    """A file name as one line of text: bytes that are no UTF-8 and control characters are replaced."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _save_figure(figure: Figure, path: Path) -> None:
    with warnings.catch_warnings():
        # What the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        figure.savefig(path, dpi=150)


@torch.no_grad()
def _lines(
    paths: Sequence[Path], target: int, classifier: Any, generator: Generator, result: Counterfactual
) -> Iterator[str]:
    confidences, classes = classifier(result.inputs).softmax(1).max(1)
    likelihoods = _likelihoods(generator, result.inputs, result.counterfactuals)
    for row, (path, status) in enumerate(zip(paths, result.statuses())):
        yield (
            f"{_printable(str(path))}: seen as {classes[row]} ({confidences[row]:.3f}), "
            f"{status.name} after {result.steps[row]} steps, "
            f"P({target}) {result.start_scores[row]:.3f} -> {result.end_scores[row]:.3f}{likelihoods[row]}"
        )


def _likelihoods(generator: Generator, images: Tensor, counterfactuals: Tensor) -> list[str]:
    """What the generator says of each image and its counterfactual; nothing where it has no density."""
    try:
        before, after = generator.log_prob(images), generator.log_prob(counterfactuals)
    except TypeError:
        return [""] * len(images)
    own = _own_likelihoods(generator, images)
    low, high = float(own.min()), float(own.max())
    word = f", far below the generator's own images ({_nats(low)} to {_nats(high)})"
    return [
        # Written so that NaN is far below, too.
        f", log p {_nats(x)} -> {_nats(y)}{'' if y >= low - (high - low) else word}"
        for x, y in zip(before.tolist(), after.tolist())
    ]


def _own_likelihoods(generator: Generator, images: Tensor) -> Tensor:
    """Log p of images that the generator makes of random latents of the typical length."""
    like = generator.encode(images[:1])
    latents = torch.randn(OWN_IMAGES, like.shape[1], generator=torch.Generator().manual_seed(0)).to(like)
    lengths = torch.linalg.vector_norm(latents, dim=1, keepdim=True)
    return generator.log_prob(generator.decode(latents / lengths * generator.typical_length(like)))


def _nats(value: float) -> str:
    return f"{value:.0f}" if abs(value) < 1e6 else f"{value:.2g}"
