r"""How each model of the zoo is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor

from captum_dcf.data import mnist
from captum_dcf.training.objectives import Classification, Likelihood, Objective, Reconstruction

__all__ = ["RECIPES", "Recipe"]

MNIST_CREDIT = "MNIST training set, 60,000 digits; Yann LeCun and Corinna Cortes, CC BY-SA 3.0"


@dataclass(frozen=True)
class Recipe:
    r"""A model, its data and its training.

    Attributes:
        architecture: An architecture of the zoo.
        arguments: Keyword arguments of that architecture.
        objective: The Lightning module that trains it.
        credit: Data, licence and attribution, for the card.
        epochs: Passes over the training set.
        batch_size: Images per step.
        learning_rate: Largest learning rate.
        clip: Largest norm of the gradient.
        weight_decay: Decoupled weight decay.
        load_data: From a folder and ``train`` to images and labels.
    """

    architecture: str
    arguments: dict[str, Any]
    objective: type[Objective]
    credit: str
    epochs: int
    batch_size: int
    learning_rate: float
    clip: float = 1.0
    weight_decay: float = 0.0
    load_data: Callable[..., tuple[Tensor, Tensor]] = field(default=mnist, repr=False)


def _digits(digit: int, root: str, train: bool) -> tuple[Tensor, Tensor]:
    images, labels = mnist(root, train)
    return images[labels == digit], labels[labels == digit]


_CLASSIFIER = Recipe(
    architecture="conv_classifier",
    arguments={},
    objective=Classification,
    credit=MNIST_CREDIT,
    epochs=6,
    batch_size=128,
    learning_rate=2e-3,
    weight_decay=1e-4,
)
_AUTOENCODER = Recipe(
    architecture="conv_autoencoder",
    arguments={"image_shape": [1, 28, 28]},
    objective=Reconstruction,
    credit=MNIST_CREDIT,
    epochs=6,
    batch_size=64,
    learning_rate=3e-3,
)

RECIPES = {
    "mnist-glow": Recipe(
        architecture="glow",
        arguments={"image_shape": [1, 28, 28], "steps": [12, 12], "hidden_channels": [96, 128]},
        objective=Likelihood,
        credit=MNIST_CREDIT,
        epochs=36,
        batch_size=64,
        learning_rate=2e-3,
    ),
    "mnist-cnn": _CLASSIFIER,
    "mnist-oracle": replace(_CLASSIFIER, architecture="residual_classifier", epochs=4),
    "mnist-ae": _AUTOENCODER,
    **{
        f"mnist-ae-{digit}": replace(
            _AUTOENCODER,
            credit=f"{MNIST_CREDIT}; its images of the class {digit} only",
            epochs=20,
            load_data=partial(_digits, digit),
        )
        for digit in range(10)
    },
}
