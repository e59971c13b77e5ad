r"""How each model of the zoo is trained: what a recipe says can be written as JSON, names stand for code."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from captum_dcf import registry

__all__ = [
    "AUGMENTATIONS",
    "OBJECTIVES",
    "RECIPES",
    "Recipe",
    "register",
    "register_augmentation",
    "register_objective",
]

# Where what is named is found. Lightning is imported when an objective is asked for.
OBJECTIVES = {
    "likelihood": "captum_dcf.training.objectives:Likelihood",
    "point_likelihood": "captum_dcf.training.objectives:PointLikelihood",
    "classification": "captum_dcf.training.objectives:Classification",
    "reconstruction": "captum_dcf.training.objectives:Reconstruction",
    "regression": "captum_dcf.training.objectives:Regression",
    "variational": "captum_dcf.training.generative:Variational",
    "adversarial": "captum_dcf.training.generative:Adversarial",
}
AUGMENTATIONS = {"shift_two_pixels": "captum_dcf.training.augment:shift_two_pixels"}


@dataclass(frozen=True)
class Recipe:
    r"""A model, its data and its training.

    Attributes:
        architecture: Name of an architecture, one of ``captum_dcf.models.registry.ARCHITECTURES``.
        arguments: Keyword arguments of that architecture.
        source: Name of a source of data, one of ``captum_dcf.data.sources.SOURCES``.
        objective: Name of what is optimised, one of ``OBJECTIVES``.
        epochs: Passes over the training set.
        batch_size: Images per step.
        learning_rate: Largest learning rate.
        classes: Labels of the images to train on and to test with; all by default.
        image_shape: (C, H, W) to which images are brought; that of the source by default.
        augment: Names of augmentations, of ``AUGMENTATIONS``, in the order in which training images go through them.
        clip: Largest norm of the gradient.
        weight_decay: Decoupled weight decay.
        source_arguments: Further keyword arguments of the source, such as the ``column`` of the labels.

    Raises:
        ValueError: ``epochs``, ``batch_size`` or ``learning_rate`` is not positive.
    """

    architecture: str
    arguments: dict[str, Any]
    source: str
    objective: str
    epochs: int
    batch_size: int
    learning_rate: float
    classes: list[int] | None = None
    image_shape: list[int] | None = None
    augment: list[str] = field(default_factory=list)
    clip: float = 1.0
    weight_decay: float = 0.0
    source_arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, part) > 0:
                raise ValueError(f"{part} must be positive, received {getattr(self, part)!r}")


_CLASSIFIER = Recipe(
    architecture="conv_classifier",
    arguments={},
    source="mnist",
    objective="classification",
    epochs=6,
    batch_size=128,
    learning_rate=2e-3,
    augment=["shift_two_pixels"],
    weight_decay=1e-4,
)
_AUTOENCODER = Recipe(
    architecture="conv_autoencoder",
    arguments={"image_shape": [1, 28, 28]},
    source="mnist",
    objective="reconstruction",
    epochs=6,
    batch_size=64,
    learning_rate=3e-3,
)

RECIPES: dict[str, Recipe] = {
    "mnist-glow": Recipe(
        architecture="glow",
        arguments={"image_shape": [1, 28, 28], "steps": [12, 12], "hidden_channels": [96, 128]},
        source="mnist",
        objective="likelihood",
        epochs=36,
        batch_size=64,
        learning_rate=2e-3,
    ),
    "mnist-cnn": _CLASSIFIER,
    "mnist-oracle": replace(_CLASSIFIER, architecture="residual_classifier", epochs=4),
    "mnist-ae": _AUTOENCODER,
    **{f"mnist-ae-{digit}": replace(_AUTOENCODER, classes=[digit], epochs=20) for digit in range(10)},
    # The paper's numbers of steps, of 500 points each.
    "helix-flow": Recipe(
        architecture="helix_flow",
        arguments={},
        source="helix",
        objective="point_likelihood",
        epochs=50,
        batch_size=500,
        learning_rate=1e-4,
    ),
    # The paper does not give the classifier's learning rate; this is the flow's. With a larger one the logit rises and
    # falls along the helix, and a search can get caught between.
    "helix-classifier": Recipe(
        architecture="helix_classifier",
        arguments={},
        source="helix",
        objective="classification",
        epochs=30,
        batch_size=500,
        learning_rate=1e-4,
    ),
}


def register(name: str, recipe: Recipe) -> None:
    r"""Adds a recipe of one's own.

    Raises:
        ValueError: Another recipe has that name.
    """
    registry.add(RECIPES, name, recipe, "recipe")


def register_objective(name: str, place: str) -> None:
    r"""Adds an objective of one's own: ``"module:class"`` of a :class:`~captum_dcf.training.objectives.Objective`.

    Raises:
        ValueError: Another objective has that name, or ``place`` is of another form.
    """
    registry.check_place(place, "an objective")
    registry.add(OBJECTIVES, name, place, "objective")


def register_augmentation(name: str, place: str) -> None:
    r"""Adds an augmentation of one's own: ``"module:function"`` of a batch of images that gives another like it.

    Raises:
        ValueError: Another augmentation has that name, or ``place`` is of another form.
    """
    registry.check_place(place, "an augmentation")
    registry.add(AUGMENTATIONS, name, place, "augmentation")
