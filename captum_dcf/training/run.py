r"""Training one recipe: Lightning's trainer, a checkpoint to go on from, weights and card at the end."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from captum_dcf.outputs import refuse_existing
from captum_dcf.training.recipes import RECIPES, Recipe
from captum_dcf.zoo.store import Card, build, save

__all__ = ["train"]


def train(
    name: str,
    root: str | Path,
    out: str | Path,
    epochs: int | None = None,
    seed: int = 0,
    limit: int | None = None,
) -> Card:
    r"""Trains a model of the zoo and writes ``NAME.safetensors`` and ``NAME.json`` into ``out``.

    A checkpoint is written to ``out/NAME.ckpt`` after each epoch. Where one of fewer epochs is found, training goes on
    from it.

    Args:
        name: A recipe, one of ``RECIPES``.
        root: Folder of the data set; for MNIST a torchvision root.
        out: Folder to write to.
        epochs: Passes over the training set; the recipe's by default.
        seed: For the first weights, the order of the images and the noise.
        limit: Use only so many images of each set, for a trial.

    Returns:
        The card that was written.

    Raises:
        ValueError: Unknown recipe, or the checkpoint in ``out`` has as many epochs already or another seed.
        FileNotFoundError: The data set is not in ``root``.
        FileExistsError: There are weights or a card of that name in ``out``, but no checkpoint.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; known are {sorted(RECIPES)}")
    recipe = RECIPES[name] if epochs is None else replace(RECIPES[name], epochs=epochs)
    train_set = _dataset(recipe.load_data(root, train=True), limit)
    test_set = _dataset(recipe.load_data(root, train=False), limit)
    out = Path(out)
    checkpoint = _checkpoint(out, name, seed, recipe.epochs)
    if checkpoint is None:
        refuse_existing([out / f"{name}.safetensors", out / f"{name}.json"])
    lightning.seed_everything(seed, verbose=False)
    card = Card(name, recipe.architecture, recipe.arguments, recipe.credit)
    objective = recipe.objective(build(card), recipe.learning_rate, recipe.weight_decay)
    objective.save_hyperparameters({"seed": seed})
    trainer = _trainer(recipe, name, out)
    started = time.monotonic()
    trainer.fit(
        objective,
        DataLoader(train_set, batch_size=recipe.batch_size, shuffle=True, drop_last=len(train_set) > recipe.batch_size),
        DataLoader(test_set, batch_size=500),
        ckpt_path=checkpoint,
    )
    minutes = (time.monotonic() - started) / 60
    lightning.seed_everything(seed, verbose=False)
    [figures] = trainer.validate(objective, DataLoader(test_set, batch_size=500), verbose=False)
    training = {
        "command": f"captum-dcf train {name} --seed {seed} --epochs {recipe.epochs}",
        "seed": seed,
        "images": len(train_set),
        "epochs": recipe.epochs,
        "epochs_before_last_run": objective.first_epoch,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "minutes_of_last_run": round(minutes, 1),
        "torch": torch.__version__,
        "device": str(objective.device),
    }
    measured = (
        f"{objective.figure} on {len(test_set):,} test images after the last epoch, none of them used in training"
    )
    rounded = {key: round(value, 4) for key, value in figures.items()}
    return save(objective.model, replace(card, training=training, figures=rounded, measured=measured), out)


def _dataset(data: tuple[Tensor, Tensor], limit: int | None) -> TensorDataset:
    images, labels = data
    return TensorDataset(images[:limit], labels[:limit])


def _trainer(recipe: Recipe, name: str, out: Path) -> lightning.Trainer:
    keep_last = ModelCheckpoint(dirpath=out, filename=name, save_top_k=1, enable_version_counter=False)
    return lightning.Trainer(
        max_epochs=recipe.epochs,
        gradient_clip_val=recipe.clip,
        callbacks=[keep_last, TQDMProgressBar(refresh_rate=10)],
        logger=False,
        devices=1,
        enable_model_summary=False,
        # ActNorm takes its scale from the first batch it sees, which has to be one of the training set.
        num_sanity_val_steps=0,
    )


def _checkpoint(out: Path, name: str, seed: int, epochs: int) -> Path | None:
    path = out / f"{name}.ckpt"
    if not path.is_file():
        return None
    found = torch.load(path, map_location="cpu", weights_only=True)
    done, began = found["epoch"] + 1, found.get("hyper_parameters", {}).get("seed", seed)
    if done >= epochs:
        raise ValueError(f"{path} has {done} epochs already: ask for more than these {epochs}, or for another folder")
    if began != seed:
        raise ValueError(f"{path} began with seed {began}, not {seed}: ask for that one, or for another folder")
    return path
