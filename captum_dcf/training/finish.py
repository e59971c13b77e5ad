r"""What stands at the end of a training: the weights and the card that says what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any, cast

import torch
from torch import Tensor

from captum_dcf.data.sources import SOURCES
from captum_dcf.generators import Generator, measure_support
from captum_dcf.models.registry import architecture
from captum_dcf.training.objectives import Objective
from captum_dcf.training.order import mixed_seed
from captum_dcf.training.processes import is_first
from captum_dcf.training.trainer import Job
from captum_dcf.zoo.card import Card
from captum_dcf.zoo.store import save, searchable

__all__ = ["write_model"]

# Training images of which the support is measured: the first percentile is that of twenty.
SUPPORT = 2000


def write_model(
    job: Job,
    objective: Objective,
    metrics: Mapping[str, float],
    training: Mapping[str, Any],
    credit: str | None,
    overwrite: bool,
) -> Card:
    r"""Writes the weights and the card of a trained model.

    Args:
        job: The training that has ended.
        objective: Its objective with the model.
        metrics: Figures on all held-out images.
        training: What the card says of the training beside the settings of the job.
        credit: What the data are; that of the source by default.
        overwrite: Whether files of an earlier run of this training are replaced.
    """
    recipe, tested = job.recipe, len(cast(Sized, job.test_set))
    settings = {part: value for part, value in job.settings.items() if part not in ("architecture", "arguments")}
    is_classifier = architecture(recipe.architecture).role == "classifier"
    card = Card(
        name=job.path.stem,
        architecture=recipe.architecture,
        arguments=recipe.arguments,
        data=_credit(job, credit),
        training={
            **training,
            **{part: value for part, value in settings.items() if value not in (None, [], {})},
            "image_shape": list(job.train_set[0][0].shape),
            "torch": torch.__version__,
            "device": str(objective.device),
        },
        figures={metric: round(value, 4) for metric, value in metrics.items()},
        measured=f"{objective.metric_name} on {tested:,} test images after the last epoch, none of them trained on",
        support=_support(job, objective),
        classes=list(job.class_names) if is_classifier else [],
    )
    if not is_first():
        return card
    return save(objective.model, card, job.path.parent, overwrite=overwrite)


def _credit(job: Job, credit: str | None) -> str:
    classes = job.recipe.classes
    of_classes = "" if classes is None else f"; its classes {classes} only"
    return f"{job.count:,} training images of {credit or SOURCES[job.recipe.source].credit}{of_classes}"


def _support(job: Job, objective: Objective) -> dict[str, Any]:
    """The support of a generator by some of its training images, {} for what is none."""
    generator = searchable(objective.model, job.recipe.architecture)
    if not isinstance(generator, Generator) or job.count < 2:
        return {}
    images = _some_images(job).to(objective.device)
    support: dict[str, Any] = measure_support(generator.eval(), images).as_dict()
    return support


def _some_images(job: Job) -> Tensor:
    chosen = torch.randperm(job.count, generator=torch.Generator().manual_seed(mixed_seed(job.seed)))[:SUPPORT]
    return torch.stack([job.train_set[number][0] for number in chosen.tolist()])
