r"""Kinds of models for images of one's own: a recipe with sensible numbers from the images alone, and its training."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from captum_dcf import registry
from captum_dcf.data.preflight import Summary, check_images
from captum_dcf.models.sizes import sizes_for
from captum_dcf.training.processes import is_first
from captum_dcf.training.recipes import Recipe
from captum_dcf.zoo.card import Card

__all__ = ["KINDS", "Kind", "recipe_for", "train_kind"]

# A small set is divided into so many batches at least, so that an epoch is more than one step.
BATCHES = 10


@dataclass(frozen=True)
class Kind:
    r"""How models of a kind are trained.

    Attributes:
        objective: One of ``captum_dcf.training.recipes.OBJECTIVES``.
        steps: Steps after which it is good for a first look, where neither epochs nor minutes are asked for.
        learning_rate: Largest learning rate.
        batch_size: Images per step.
        weight_decay: Decoupled weight decay.
        labels: What it learns beside the images, ``"classes"`` or ``"value"``; None for nothing.
    """

    objective: str
    steps: int
    learning_rate: float
    batch_size: int = 64
    weight_decay: float = 0.0
    labels: Literal["classes", "value"] | None = None


KINDS: dict[str, Kind] = {
    "glow": Kind("likelihood", 10_000, 1e-3),
    "vae": Kind("variational", 10_000, 1e-3),
    "gan": Kind("adversarial", 20_000, 2e-4),
    "autoencoder": Kind("reconstruction", 5_000, 2e-3),
    "classifier": Kind("classification", 2_000, 1e-3, weight_decay=1e-4, labels="classes"),
    "regressor": Kind("regression", 2_000, 1e-3, weight_decay=1e-4, labels="value"),
}


def recipe_for(
    kind: str,
    image_shape: Sequence[int],
    images: int,
    classes: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    source_arguments: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Recipe:
    r"""The recipe of a kind of model for images of the source ``images``.

    Args:
        kind: ``"glow"``, ``"vae"``, ``"gan"``, ``"autoencoder"``, ``"classifier"`` or ``"regressor"``.
        image_shape: (C, H, W) to which images are brought.
        images: Number of training images.
        classes: Number of classes; None where images have values.
        arguments: Those of the architecture that are not to be the ones from
            :func:`captum_dcf.models.sizes.sizes_for`, such as ``{"steps": [8, 8, 8]}``.
        source_arguments: Those of the source, such as ``{"column": "blond"}``.
        changes: Any other field of the :class:`Recipe` that is not to be the default, such as ``batch_size``.

    Raises:
        ValueError: There is no such kind, or it cannot learn from these classes or sizes.
        TypeError: A recipe has no such field.
    """
    found = registry.find(KINDS, kind, "kind of model")
    architecture, sizes = sizes_for(kind, tuple(image_shape), images, classes)
    batch_size = min(found.batch_size, max(1, images // BATCHES))
    recipe = Recipe(
        architecture=architecture,
        arguments={**sizes, **(arguments or {})},
        source="images",
        objective=found.objective,
        epochs=max(1, found.steps * batch_size // max(1, images)),
        batch_size=batch_size,
        learning_rate=found.learning_rate,
        image_shape=list(image_shape),
        weight_decay=found.weight_decay,
        source_arguments={**(source_arguments or {})},
    )
    return replace(recipe, **{part: value for part, value in changes.items() if value is not None})


def train_kind(
    kind: str,
    data: str | Path,
    out: str | Path,
    size: int | Sequence[int] = 64,
    channels: int | None = None,
    column: str | None = None,
    group: str | None = None,
    holdout: float | None = None,
    name: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    augment: Sequence[str] | None = None,
    credit: str | None = None,
    **options: Any,
) -> Card:
    r"""Checks every file, chooses a recipe and trains by it, see :func:`captum_dcf.training.run.fit`.

    Args:
        kind: One of :data:`KINDS`.
        data: A folder of images, one with a sub-folder per class, or a CSV file that names them, see
            :func:`captum_dcf.data.images.open_images`.
        out: Folder to write to.
        size: Height and width to which images are resized, one number for both.
        channels: 1 for grey and 3 for colour; what the files have by default.
        column: Column of the CSV file that holds the labels.
        group: Column of the CSV file that says which images belong together, such as those of one person: all of them
            are trained on, or held out.
        holdout: Share of the images to hold out, a tenth by default, where the folder does not say which.
        name: Name of the model and of its files; the kind by default.
        arguments: Those of the architecture that are not to be the defaults.
        batch_size: Images per step.
        learning_rate: Largest learning rate.
        weight_decay: Decoupled weight decay.
        augment: Names of augmentations, one of ``captum_dcf.training.recipes.AUGMENTATIONS`` each.
        credit: What the data are, by whom and under which licence, for the card; the place of the data by default.
        options: Those of :func:`captum_dcf.training.run.fit`: ``minutes`` or ``epochs``, ``seed``, ``limit``, ...

    Raises:
        ValueError: Files are broken (each is named), there are none of them, or they do not fit the kind.
    """
    from captum_dcf.training.run import fit

    arranged = {
        "column": column,
        "group": group,
        "labels": registry.find(KINDS, kind, "kind of model").labels,
        "holdout": holdout,
    }
    arranged = {part: value for part, value in arranged.items() if value is not None}
    summary = _checked(data, arranged)
    height, width = (size, size) if isinstance(size, int) else size
    recipe = recipe_for(
        kind,
        (channels or summary.channels, height, width),
        summary.count - summary.held_out,
        None if summary.classes is None else len(summary.classes),
        arguments,
        arranged,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        augment=None if augment is None else list(augment),
    )
    command = " ".join(
        [
            kind,
            "--data",
            str(data),
            "--size",
            str(size),
            *(f"--{part} {arranged[part]}" for part in arranged if part != "labels"),
        ]
    )
    return fit(recipe, data, out, name or kind, credit=credit or _credit(data), command=command, **options)


def _checked(data: str | Path, arranged: Mapping[str, Any]) -> Summary:
    """Opens every file, and says what there is."""
    with tqdm(unit="image", leave=False, disable=not sys.stderr.isatty()) as bar:

        def show(number: int, count: int) -> None:
            bar.total = count
            bar.update(number - bar.n)

        summary = check_images(data, **arranged, progress=show)
    if is_first():
        print(summary, file=sys.stderr, flush=True)
    return summary


def _credit(data: str | Path) -> str:
    return f"{Path(data).resolve().name}, the user's own"
