r"""What is trained: Lightning modules for flows, classifiers and autoencoders, each with one metric."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics import MeanSquaredError

from captum_dcf.data.sources import labels_of
from captum_dcf.models.glow import CouplingNetwork

__all__ = [
    "Classification",
    "Likelihood",
    "Objective",
    "PointLikelihood",
    "Reconstruction",
    "Regression",
    "bits_per_dimension",
]


class Objective(lightning.LightningModule):
    r"""A model, its loss, its metric on all held-out images, and Adam with a warm-up of 2 % and a cosine decay to zero.

    Args:
        model: The model to train.
        learning_rate: Largest learning rate.
        weight_decay: Decoupled weight decay (AdamW).
        augment: Functions through which training images go, one after the other.

    Attributes:
        metric_name: Name of the metric.
        settings: What a checkpoint says of the training.
        betas: Adam's, the decay of its averages of gradients and of their squares.
    """

    metric_name: str
    betas: tuple[float, float] = (0.9, 0.999)

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float,
        weight_decay: float = 0.0,
        augment: Sequence[Callable[[Tensor], Tensor]] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.augment = tuple(augment)
        self.settings: dict[str, Any] = {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        r"""Writes the settings of the training into its checkpoint."""
        # Not save_hyperparameters: it looks through all callers, and that of Lightning 2.2 fails at the command line.
        checkpoint["hyper_parameters"] = self.settings

    @abstractmethod
    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        r"""The scalar to minimise on one batch."""

    @abstractmethod
    def metric(self, images: Tensor, labels: Tensor) -> Tensor:
        r"""The metric on one batch, averaged over it; averaged over batches by their sizes it is that of all images."""

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, labels = batch
        for augment in self.augment:
            images = augment(images)
        loss = self.loss(images, labels)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        self.log(self.metric_name, self.metric(*batch), prog_bar=True, batch_size=len(batch[0]))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay
        )
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warmed_cosine(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Likelihood(Objective):
    r"""Maximum likelihood of a flow on dequantised pixels; the metric is bits per dimension, lower is better.

    ActNorm takes its scale from the first batch. Coupling networks train in bfloat16 (autocast); the metric is always
    taken in float32.
    """

    metric_name = "bits_per_dimension"

    def on_train_start(self) -> None:
        batches = self.trainer.train_dataloader
        # Draws random numbers, for the order of the images and for their noise; a training that goes on from a
        # checkpoint has its scales, and does not come here.
        if self.global_step == 0 and batches is not None:
            with torch.no_grad():
                images, labels = next(iter(batches))
                self.metric(images.to(self.device), labels)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        networks = [module for module in self.model.modules() if isinstance(module, CouplingNetwork)]
        for network in networks:
            network.autocast = True
        try:
            return bits_per_dimension(self.model, images).mean()
        finally:
            for network in networks:
                network.autocast = False

    def metric(self, images: Tensor, labels: Tensor) -> Tensor:
        return bits_per_dimension(self.model, images).mean()


class PointLikelihood(Objective):
    r"""Maximum likelihood of a flow on points as they are; the metric is their negative log-likelihood in nats."""

    metric_name = "negative_log_likelihood"

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        flow: Any = self.model
        log_likelihood: Tensor = flow.log_prob(images)
        return -log_likelihood.mean()

    def metric(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.loss(images, labels)


class Classification(Objective):
    r"""Cross-entropy of a classifier, (N, C) logits or (N, 1) of two classes; the metric is the accuracy, in per cent.

    Raises:
        ValueError: A label has no logit.
    """

    metric_name = "accuracy"

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self._logits(images, labels), labels)

    def metric(self, images: Tensor, labels: Tensor) -> Tensor:
        return 100 * (self._logits(images, labels).argmax(1) == labels).float().mean()

    def _logits(self, images: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        if logits.shape[1] == 1:
            logits = torch.cat((torch.zeros_like(logits), logits), dim=1)
        if labels.min() < 0 or labels.max() >= logits.shape[1]:
            raise ValueError(
                f"labels must be from 0 to {logits.shape[1] - 1}, the classes of the model; "
                f"received {int(labels.min())} to {int(labels.max())}"
            )
        return logits


class Reconstruction(Objective):
    r"""Mean squared error of an autoencoder; the metric is the same on held-out images, lower is better."""

    metric_name = "mean_squared_error"

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.mse_loss(self.model(images), images)

    def metric(self, images: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.mse_loss(self.model(images), images)


class Regression(Objective):
    r"""Mean squared error of values, in units of the deviation of the training labels.

    The metric is the root of the mean squared error, in the units of the labels, lower is better. The model is a
    :class:`~captum_dcf.models.classifier.ConvRegressor`, or another with ``set_units`` and ``deviation``.
    """

    metric_name = "root_mean_squared_error"

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float,
        weight_decay: float = 0.0,
        augment: Sequence[Callable[[Tensor], Tensor]] = (),
    ) -> None:
        super().__init__(model, learning_rate, weight_decay, augment)
        self.of_all = MeanSquaredError(squared=False)

    def on_train_start(self) -> None:
        # A training that goes on from a checkpoint has its units.
        if self.global_step == 0:
            dataset: Any = self.trainer.train_dataloader.dataset  # type: ignore[union-attr]
            # A data set of batches has no length, and is around that of their images.
            model: Any = self.model
            model.set_units(labels_of(dataset if hasattr(dataset, "__len__") else dataset.dataset))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        model: Any = self.model
        error: Tensor = nn.functional.mse_loss(self._values(images), labels.to(images)) / model.deviation.square()
        return error

    def metric(self, images: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.mse_loss(self._values(images), labels.to(images)).sqrt()

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        # A mean of roots is not the root of the mean.
        images, labels = batch
        self.of_all.update(self._values(images), labels.to(images))
        self.log(self.metric_name, self.of_all, prog_bar=True)

    def _values(self, images: Tensor) -> Tensor:
        values: Tensor = self.model(images)
        return values.reshape(len(images))


def bits_per_dimension(flow: Any, images: Tensor, bins: int | None = None) -> Tensor:
    r"""Negative log-likelihood of dequantised images in bits per dimension, (N,); lower is better.

    Pixels are rounded to the nearest of ``bins`` grey levels, which changes nothing of 8-bit images where there are
    256, and each call draws its own dequantisation noise, uniform in one grey level around each pixel. Figures of
    different ``bins`` cannot be compared: at most log2(``bins``) bits are there to be saved.

    Args:
        flow: A normflows ``MultiscaleFlow`` on pixels in [0, 1].
        images: Images (N, C, H, W) in [0, 1].
        bins: Grey levels; by default those that the flow was made for, or 256 where it does not say.
    """
    if bins is None:
        bins = getattr(getattr(flow, "transform", None), "bins", 256)
    dimensions = images[0].numel()
    levels = (images * (bins - 1)).round()
    noise = torch.rand_like(images) - 0.5
    log_likelihood: Tensor = flow.log_prob((levels + noise) / (bins - 1), None)
    return (dimensions * math.log(bins - 1) - log_likelihood) / (dimensions * math.log(2))


def _warmed_cosine(step: int, total: int) -> float:
    warm_up = max(1, total // 50)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, total - warm_up))))
