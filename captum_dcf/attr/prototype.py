r"""PrototypeCounterfactual: FISTA in pixels towards the latents of the target class (Van Looveren and Klaise, 2021)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from captum_dcf.attr._checks import check_inputs
from captum_dcf.attr.contrastive import ContrastiveCounterfactual, Lead
from captum_dcf.attr.counterfactual import ModelOptions
from captum_dcf.generators.base import Generator
from captum_dcf.search import Coordinates, Goal, Model, ReachClass
from captum_dcf.search.coordinates import encode
from captum_dcf.search.numbers import check_int, check_real
from captum_dcf.search.term import Term

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["PrototypeCounterfactual", "nearest_mean"]

# Images that are encoded and classified together.
CHUNK = 256
NO_CLASS = -1


class PrototypeCounterfactual(ContrastiveCounterfactual):
    r"""Counterfactuals by minimising c·L + β‖δ‖₁ + ‖δ‖₂² + γ‖AE(x') - x'‖₂² + θ‖E(x') - proto_t‖₂² over pixels.

    :class:`ContrastiveCounterfactual` with one more term: the prototype of the class t is the mean of the latents
    nearest to E(x) among those of reference images that f calls t. The weights are those published for MNIST with an
    autoencoder of few dimensions. The latents of a flow change too fast with the pixels for them.

    Van Looveren and Klaise, "Interpretable Counterfactual Explanations Guided by Prototypes", ECML PKDD 2021,
    https://arxiv.org/abs/1907.02584

    Args:
        forward_func: The model: images (N, ...), and additional arguments, to outputs. Additional arguments of one
            entry per example are refused: reference images have none.
        reference: Images of all classes that are to be reached, (M, ...). Encoded and classified at each call.
        autoencoder: A generator: E is its ``encode``, AE its reconstruction.
        theta: θ, the weight of the prototype's term. Belongs to the scale of E's latents: where images saturate and
            nothing is found, it is too great.
        neighbors: Latents whose mean is a prototype; all of them where f calls fewer t.
        kappa: κ, the lead in probability that is asked for.
        beta: β, the width of the soft threshold, in pixel values.
        gamma: γ, the weight of the autoencoder's term.
        c: The first c.
        outer_steps: Runs, each with its own c.
        lr: Learning rate of the first iteration of a run.
        data_range: Least and greatest pixel value, None for no bounds.
        model_options: ``output``, ``select``, ``normalize``: see :class:`CounterfactualAttribution`.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        reference: Tensor,
        autoencoder: Generator,
        theta: float = 100.0,
        neighbors: int = 5,
        kappa: float = 0.0,
        beta: float = 0.1,
        gamma: float = 100.0,
        c: float = 1.0,
        outer_steps: int = 2,
        lr: float = 0.01,
        data_range: tuple[float, float] | None = (0.0, 1.0),
        **model_options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(forward_func, autoencoder, kappa, beta, gamma, c, outer_steps, lr, data_range, **model_options)
        if not isinstance(autoencoder, Generator):
            raise TypeError(f"autoencoder must be a captum_dcf Generator, received {type(autoencoder).__name__}")
        if not isinstance(reference, Tensor):
            raise TypeError(f"reference must be a tensor of images, received {type(reference).__name__}")
        check_inputs(reference, "reference")
        self.reference = reference
        self.encoder = autoencoder
        self.theta = check_real("theta", theta, at_least=0.0)
        self.neighbors = check_int("neighbors", neighbors, at_least=1)

    def check_goal(self, goal: Goal) -> Goal:
        if not isinstance(goal, ReachClass):
            raise ValueError(f"PrototypeCounterfactual accepts target= and ReachClass, received {type(goal).__name__}")
        return super().check_goal(goal)

    def terms(self, inputs: Tensor, model: Model, goal: Goal, coordinates: Coordinates) -> tuple[Term, ...]:
        if self.reference.shape[1:] != inputs.shape[1:]:
            known, received = tuple(self.reference.shape[1:]), tuple(inputs.shape[1:])
            raise ValueError(f"reference images have the shape {known}, the inputs {received}")
        labels = cast(ReachClass, cast(Lead, goal).goal).labels(torch.arange(len(inputs), device=inputs.device))
        chunks = [chunk.to(inputs) for chunk in self.reference.split(CHUNK)]
        encodings = torch.cat([encode(self.encoder, chunk) for chunk in chunks])
        classes = torch.cat([_classes(model, goal, chunk) for chunk in chunks])
        # A reference image that cannot be encoded must not spoil the prototypes.
        classes = torch.where(encodings.isfinite().all(1), classes, NO_CLASS)
        latents = torch.cat([encode(self.encoder, chunk) for chunk in inputs.split(CHUNK)])
        prototypes = nearest_mean(latents, labels, encodings, classes, self.neighbors)
        return (
            *super().terms(inputs, model, goal, coordinates),
            PrototypeDistance(self.encoder, prototypes, self.theta),
        )


@dataclass(frozen=True, eq=False)
class PrototypeDistance:
    r"""``weight`` · ‖E(x') - proto‖₂² with one prototype (N, d) for each example of the call."""

    encoder: Generator
    prototypes: Tensor
    weight: float

    def __call__(self, images: Tensor, points: Tensor, rows: Tensor) -> tuple[Tensor, None]:
        return self.weight * (self.encoder.encode(images.clone()) - self.prototypes[rows]).square().sum(1), None


@torch.no_grad()
def _classes(model: Model, goal: Goal, images: Tensor) -> Tensor:
    output = model(images)
    goal.check(output)
    return output.argmax(1)


def nearest_mean(latents: Tensor, labels: Tensor, encodings: Tensor, classes: Tensor, neighbors: int) -> Tensor:
    r"""The mean of the ``neighbors`` encodings of each label's class that are nearest to each latent, (n, D).

    Args:
        latents: (n, D).
        labels: A class for each of them, int64 (n,).
        encodings: (M, D).
        classes: The class of each of them, int64 (M,).
        neighbors: How many are averaged; all of a class that has fewer.

    Raises:
        ValueError: A label has no encoding.
    """
    prototypes = torch.empty_like(latents)
    wide = torch.promote_types(latents.dtype, torch.float32)
    for label in labels.unique():
        candidates = encodings[classes == label]
        if not len(candidates):
            raise ValueError(f"the model calls none of the {len(encodings)} reference images {int(label)}: add some")
        chosen = labels == label
        # Not by way of a matrix product, whose rounding depends on the size of the batch; and not in half precision,
        # in which there are no distances.
        mode = "donot_use_mm_for_euclid_dist"
        distances = torch.cdist(latents[chosen].to(wide), candidates.to(wide), compute_mode=mode)
        nearest = distances.topk(min(neighbors, len(candidates)), largest=False).indices
        prototypes[chosen] = candidates[nearest].mean(1)
    return prototypes
