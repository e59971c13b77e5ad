r"""Training one recipe: Lightning's trainer, a checkpoint to go on from, weights and card at the end."""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from captum_dcf import registry
from captum_dcf.data.sources import SOURCES, of_classes, open_source
from captum_dcf.training.checkpoint import epochs_done, read_checkpoint
from captum_dcf.training.objectives import Objective
from captum_dcf.training.recipes import AUGMENTATIONS, OBJECTIVES, RECIPES, Recipe
from captum_dcf.zoo.card import Card, weights_path
from captum_dcf.zoo.store import build, check_absent, save

__all__ = ["train"]


def train(
    name: str,
    root: str | Path | None,
    out: str | Path,
    epochs: int | None = None,
    seed: int = 0,
    limit: int | None = None,
) -> Card:
    r"""Trains a model by its recipe and writes ``NAME.safetensors`` and ``NAME.json`` into ``out``.

    A checkpoint is written to ``out/NAME.ckpt`` after each epoch. Where one of fewer epochs is found, training goes on
    from it: the learning rate follows the cosine of all ``epochs`` from there on, and the order of the images is
    another than that of one run. The caller's random state stays as it is.

    Args:
        name: A recipe, one of ``captum_dcf.training.recipes.RECIPES``.
        root: Folder of the data set; for MNIST a torchvision root, or None for the bundled samples.
        out: Folder to write to.
        epochs: Passes over the training set; the recipe's by default.
        seed: For the first weights, the order of the images and the noise.
        limit: Use only so many images of each set, for a trial.

    Returns:
        The card that was written.

    Raises:
        ValueError: Unknown recipe; data that do not fit it; the checkpoint in ``out`` is none, is that of another
            training (seed, limit or recipe), or has as many epochs already.
        FileExistsError: There is a model of that name in ``out`` and no checkpoint beside it.
        OSError: ``out`` cannot be written to.
        FileNotFoundError: The data set is not in ``root``.
    """
    recipe = registry.find(RECIPES, name, "recipe")
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    train_set, test_set = (_dataset(recipe, root, split, limit) for split in ("train", "test"))
    settings = {"seed": seed, "limit": limit, **asdict(recipe)}
    del settings["epochs"]
    path = Path(out) / f"{name}.ckpt"
    checkpoint = _prepare(path, settings, recipe.epochs)
    started = time.monotonic()
    objective, metrics = _fit(recipe, settings, train_set, test_set, path, checkpoint)
    said = {part: value for part, value in settings.items() if part not in ("architecture", "arguments")}
    training = {
        "command": _command(name, seed, recipe.epochs, limit),
        "images": len(train_set),
        "epochs": recipe.epochs,
        "epochs_before_last_run": epochs_done(checkpoint),
        **{part: value for part, value in said.items() if value not in (None, [])},
        "minutes_of_last_run": round((time.monotonic() - started) / 60, 1),
        "torch": torch.__version__,
        "device": str(objective.device),
    }
    measured = f"{objective.metric_name} on {len(test_set):,} test images after the last epoch, none of them trained on"
    figures = {metric: round(value, 4) for metric, value in metrics.items()}
    data = _credit(recipe, len(train_set))
    card = Card(name, recipe.architecture, recipe.arguments, data, training, figures, measured)
    return save(objective.model, card, out, overwrite=checkpoint is not None)


def _dataset(recipe: Recipe, root: str | Path | None, split: str, limit: int | None) -> Subset[tuple[Tensor, Any]]:
    dataset = open_source(recipe.source, root, split, recipe.image_shape)
    if recipe.classes is not None:
        dataset = of_classes(dataset, recipe.classes)
    there = len(dataset)  # type: ignore[arg-type]
    count = there if limit is None else min(there, limit)
    if count < 1:
        raise ValueError(f"no images to {split} with: there are {there}, and limit is {limit!r}")
    return Subset(dataset, range(count))


def _prepare(path: Path, settings: dict[str, Any], epochs: int) -> dict[str, Any] | None:
    """What the folder of ``path`` has to go on from; refuses, before hours are spent, what would be refused after."""
    name, out = path.stem, path.parent
    checkpoint = read_checkpoint(path, settings) if path.exists() else None
    if checkpoint is None:
        check_absent(name, out)
    done = epochs_done(checkpoint)
    # A training that was ended between its last epoch and its weights still has them to write.
    if done > epochs or (done == epochs and weights_path(name, out).exists()):
        raise ValueError(f"{path} has {done} epochs already: ask for more than these {epochs}, or for another folder")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out):
        return checkpoint


def _credit(recipe: Recipe, count: int) -> str:
    of_classes = "" if recipe.classes is None else f"; its classes {recipe.classes} only"
    return f"{count:,} training images of {SOURCES[recipe.source].credit}{of_classes}"


def _command(name: str, seed: int, epochs: int, limit: int | None) -> str:
    limited = "" if limit is None else f" --limit {limit}"
    return f"captum-dcf train {name} --seed {seed} --epochs {epochs}{limited}"


def _fit(
    recipe: Recipe,
    settings: dict[str, Any],
    train_set: Subset[Any],
    test_set: Subset[Any],
    path: Path,
    checkpoint: dict[str, Any] | None,
) -> tuple[Objective, Mapping[str, float]]:
    """The trained objective and its metrics; the caller's random state stays as it is."""
    with isolate_rng(), _quiet():
        torch.manual_seed(settings["seed"])
        objective = _objective(recipe)
        objective.save_hyperparameters(settings)
        if checkpoint is not None:
            _check_weights(objective, checkpoint, path)
        trainer = _trainer(recipe, path)
        # A last batch of a few images would weigh as much as a whole one.
        drop_last = len(train_set) > recipe.batch_size
        train_loader = DataLoader(train_set, batch_size=recipe.batch_size, shuffle=True, drop_last=drop_last)
        test_loader = DataLoader(test_set, batch_size=500)
        trainer.fit(objective, train_loader, test_loader, ckpt_path=None if checkpoint is None else path)
        if trainer.interrupted:
            # Older releases of Lightning return from Ctrl-C as if the training had ended.
            raise KeyboardInterrupt
        # Some metrics draw noise.
        torch.manual_seed(settings["seed"])
        [metrics] = trainer.validate(objective, test_loader, verbose=False)
    return objective, metrics


def _objective(recipe: Recipe) -> Objective:
    kind = registry.imported(registry.find(OBJECTIVES, recipe.objective, "objective"))
    augment = [registry.imported(registry.find(AUGMENTATIONS, name, "augmentation")) for name in recipe.augment]
    model = build(Card(recipe.architecture, recipe.architecture, recipe.arguments, ""))
    objective: Objective = kind(model, recipe.learning_rate, recipe.weight_decay, augment)
    return objective


def _check_weights(objective: Objective, checkpoint: dict[str, Any], path: Path) -> None:
    try:
        objective.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{path} holds the weights of another model") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """A context without what Lightning says of itself: what it found on the machine, and what else its makers offer."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _trainer(recipe: Recipe, path: Path) -> lightning.Trainer:
    # In a log, a bar would be a line for each of its moves.
    shows_progress = sys.stderr.isatty()
    keep_last = ModelCheckpoint(dirpath=path.parent, filename=path.stem, save_top_k=1, enable_version_counter=False)
    return lightning.Trainer(
        max_epochs=recipe.epochs,
        gradient_clip_val=recipe.clip,
        callbacks=[keep_last, *([TQDMProgressBar(refresh_rate=10)] if shows_progress else [])],
        enable_progress_bar=shows_progress,
        logger=False,
        devices=1,
        enable_model_summary=False,
        # ActNorm takes its scale from the first batch it sees, which has to be one of the training set.
        num_sanity_val_steps=0,
    )
