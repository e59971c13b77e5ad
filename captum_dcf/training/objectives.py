r"""What is trained: Lightning modules for flows, classifiers and autoencoders, each with one validation figure."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from captum_dcf.models.glow import CouplingNetwork

__all__ = ["Classification", "Likelihood", "Objective", "Reconstruction", "bits_per_dimension"]


class Objective(lightning.LightningModule):
    r"""A model, its loss, its validation figure, and Adam with a warm-up of 2 % and a cosine decay to zero.

    Args:
        model: The model to train.
        learning_rate: Largest learning rate.
        weight_decay: Decoupled weight decay (AdamW).
    """

    figure: str

    def __init__(self, model: nn.Module, learning_rate: float, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.model = model
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.first_epoch = 0

    def on_train_start(self) -> None:
        # Not 0 where training goes on from a checkpoint: the card says so.
        self.first_epoch = self.current_epoch

    @abstractmethod
    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        r"""The scalar to minimise on one batch."""

    @abstractmethod
    def measure(self, images: Tensor, labels: Tensor) -> Tensor:
        r"""The validation figure on one batch, averaged over it."""

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        loss = self.loss(*batch)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        self.log(self.figure, self.measure(*batch), prog_bar=True, batch_size=len(batch[0]))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warmed_cosine(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Likelihood(Objective):
    r"""Maximum likelihood of a flow on dequantised pixels; the figure is bits per dimension on held-out images.

    ActNorm takes its scale from the first batch. Coupling networks train in bfloat16 (autocast); the figure is always
    taken in float32.
    """

    figure = "bits_per_dimension"

    def on_train_start(self) -> None:
        super().on_train_start()
        batches = self.trainer.train_dataloader
        if self.global_step == 0 and batches is not None:
            with torch.no_grad():
                images, labels = next(iter(batches))
                self.measure(images.to(self.device), labels)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        networks = [module for module in self.model.modules() if isinstance(module, CouplingNetwork)]
        for network in networks:
            network.autocast = True
        try:
            return bits_per_dimension(self.model, images).mean()
        finally:
            for network in networks:
                network.autocast = False

    def measure(self, images: Tensor, labels: Tensor) -> Tensor:
        return bits_per_dimension(self.model, images).mean()


class Classification(Objective):
    r"""Cross-entropy of a classifier on images shifted by up to two pixels; the figure is the accuracy, in per cent."""

    figure = "accuracy"

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.model(_shifted(images, 2)), labels)

    def measure(self, images: Tensor, labels: Tensor) -> Tensor:
        return 100 * (self.model(images).argmax(1) == labels).float().mean()


class Reconstruction(Objective):
    r"""Mean squared error of an autoencoder; the figure is the same on held-out images."""

    figure = "mean_squared_error"

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.mse_loss(self.model(images), images)

    def measure(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.loss(images, labels)


def bits_per_dimension(flow: Any, images: Tensor, bins: int = 256) -> Tensor:
    r"""Negative log-likelihood of dequantised 8-bit images in bits per dimension, (N,); lower is better.

    Uniform noise of one grey level is added to the pixels, as is usual (Theis et al., 2016), so the figure bounds that
    of the discrete image from above. The noise comes from torch's global generator.

    Args:
        flow: A normflows ``MultiscaleFlow`` on pixels in [0, 1].
        images: Images (N, C, H, W) in [0, 1].
        bins: Grey levels.
    """
    dimensions = images[0].numel()
    noise = (torch.rand_like(images) - 0.5) / (bins - 1)
    nats = dimensions * math.log(bins - 1) - flow.log_prob(images + noise, None)
    return nats / (dimensions * math.log(2))


def _shifted(images: Tensor, pixels: int) -> Tensor:
    # One random shift per batch costs a slice; over an epoch every image sees many of them.
    height, width = images.shape[-2:]
    padded = nn.functional.pad(images, (pixels,) * 4)
    top, left = torch.randint(0, 2 * pixels + 1, (2,)).tolist()
    return padded[..., top : top + height, left : left + width]


def _warmed_cosine(step: int, total: int) -> float:
    warm_up = max(1, total // 50)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, total - warm_up))))
