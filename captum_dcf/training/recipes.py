r"""How each model of the zoo is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from captum_dcf.data import mnist
from captum_dcf.training.objectives import Classification, Likelihood, Objective

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
    load_data: Any = field(default=mnist, repr=False)


RECIPES = {
    "mnist-cnn": Recipe(
        architecture="conv_classifier",
        arguments={},
        objective=Classification,
        credit=MNIST_CREDIT,
        epochs=8,
        batch_size=128,
        learning_rate=2e-3,
        weight_decay=1e-4,
    ),
    "mnist-glow": Recipe(
        architecture="glow",
        arguments={"image_shape": [1, 28, 28], "steps": [12, 12], "hidden_channels": [96, 128]},
        objective=Likelihood,
        credit=MNIST_CREDIT,
        epochs=22,
        batch_size=64,
        learning_rate=2e-3,
    ),
}
