r"""Checkpoints of a training: what is found is read as data only, and gone on from if it is of the same training."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

__all__ = ["read_checkpoint", "rounds_done", "write_whole"]

_PARTS = ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "hyper_parameters")


def read_checkpoint(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    r"""A checkpoint of the training that ``settings`` describes.

    Args:
        path: The file; nothing in it is executed.
        settings: What the training fixes (seed, limit, recipe), as it was saved among the hyperparameters.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is no checkpoint, or that of another training.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # its messages are pages of advice
        raise ValueError(f"{path} cannot be read as a checkpoint: {type(error).__name__}") from error
    missing = [part for part in _PARTS if not isinstance(found, dict) or part not in found]
    if missing:
        raise ValueError(f"{path} is no checkpoint of a training: it lacks {', '.join(missing)}")
    began = found["hyper_parameters"]
    for part, value in settings.items():
        if began.get(part, value) != value:
            raise ValueError(
                f"{path} began with {part} {began[part]!r}, not {value!r}: ask for that one, or for another folder"
            )
    checkpoint: dict[str, Any] = found
    return checkpoint


def rounds_done(checkpoint: dict[str, Any] | None) -> int:
    r"""How many rounds a checkpoint has, 0 for none."""
    return 0 if checkpoint is None else int(checkpoint["epoch"]) + 1


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    r"""Has a file written beside its place, and moved there when all of it is on the disk.

    Args:
        path: Its place. What stood there stays as it was until then, also when the process is killed.
        write: Writes the file at the path that it is given, which ends as ``path`` does.

    Raises:
        OSError: It cannot be written; what was written of it is taken away.
    """
    temporary = path.with_name(f".unfinished-{path.name}")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
