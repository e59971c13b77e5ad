r"""PrototypeCounterfactual: FISTA in pixels towards the latents of the target class (Van Looveren and Klaise, 2021)."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from captum_dcf.attr._checks import check_inputs
from captum_dcf.attr.contrastive import ContrastiveCounterfactual, Term, class_probabilities
from captum_dcf.attr.counterfactual import Query
from captum_dcf.generators.base import Generator
from captum_dcf.search.goal import Goal, OutputKind, ReachClass
from captum_dcf.search.result import Counterfactual

__all__ = ["PrototypeCounterfactual", "nearest_mean"]

# Reference images that are encoded and classified together.
CHUNK = 256
NO_CLASS = -1


class PrototypeCounterfactual(ContrastiveCounterfactual):
    r"""Counterfactuals by minimising c·L + β‖δ‖₁ + ‖δ‖₂² + γ‖AE(x') - x'‖₂² + θ‖E(x') - proto_t‖₂² over pixels.

    :class:`ContrastiveCounterfactual` with one more term: the prototype of the class t is the mean of the latents
    nearest to E(x) among those of reference images that f calls t. The weights are those published for MNIST with an
    autoencoder of few dimensions. The latents of a flow change too fast with the pixels for them: pass an autoencoder
    beside it.

    Van Looveren and Klaise, "Interpretable Counterfactual Explanations Guided by Prototypes", ECML PKDD 2021,
    https://arxiv.org/abs/1907.02584

    Args:
        forward_func: The model: images (N, ...), and additional arguments, to outputs.
        generator: Says the range of pixels, and gives the reconstructions and latents of the result.
        reference: Images of all classes that are to be reached, (M, ...). Encoded, and classified without additional
            arguments, at the first call, and never again.
        autoencoder: AE, as in :class:`ContrastiveCounterfactual`. E is its ``encode`` if it is a generator itself, else
            that of ``generator``.
        theta: θ, the weight of the prototype's term. Belongs to the scale of E's latents: where images saturate and
            nothing is found, it is too great.
        neighbors: Latents whose mean is a prototype; all of them where f calls fewer t.
        kappa: κ, the lead in probability that is asked for.
        beta: β, the width of the soft threshold, in pixel values.
        gamma: γ, the weight of the autoencoder's term.
        c: The first c.
        outer_steps: Runs, each with its own c.
        lr: Learning rate of the first iteration of a run.
        output: What the model gives: ``"logits"``, ``"probabilities"`` or ``"binary_logit"``.
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        generator: Generator,
        reference: Tensor,
        autoencoder: nn.Module | None = None,
        theta: float = 100.0,
        neighbors: int = 5,
        kappa: float = 0.0,
        beta: float = 0.1,
        gamma: float = 100.0,
        c: float = 1.0,
        outer_steps: int = 2,
        lr: float = 0.01,
        output: OutputKind = "logits",
    ) -> None:
        super().__init__(forward_func, generator, autoencoder, kappa, beta, gamma, c, outer_steps, lr, output)
        if not isinstance(reference, Tensor):
            raise TypeError(f"reference must be a tensor of images, received {type(reference).__name__}")
        check_inputs(reference)
        if not 0 <= theta < float("inf"):
            raise ValueError(f"theta must be 0 or more and finite, received {theta}")
        if neighbors < 1:
            raise ValueError(f"neighbors must be at least 1, received {neighbors}")
        self.reference = reference
        self.theta = theta
        self.neighbors = neighbors
        self.encoder = autoencoder if isinstance(autoencoder, Generator) else generator
        self._encoded: tuple[Tensor, Tensor] | None = None

    def check_goal(self, goal: Goal) -> None:
        r"""Refuses goals without a class to reach: they have no prototype.

        Raises:
            ValueError: The goal is not ``ReachClass``.
        """
        if not isinstance(goal, ReachClass):
            raise ValueError(f"PrototypeCounterfactual accepts target= and ReachClass, received {type(goal).__name__}")

    def further_term(self, query: Query, result: Counterfactual, rows: Tensor) -> Term:
        r"""θ‖E(x') - proto_t‖₂²."""
        goal = cast(ReachClass, query.goal)
        if self.reference.shape[1:] != query.inputs.shape[1:]:
            known, received = tuple(self.reference.shape[1:]), tuple(query.inputs.shape[1:])
            raise ValueError(f"reference images have the shape {known}, the inputs {received}")
        labels = torch.as_tensor(goal.label, dtype=torch.int64, device=rows.device).expand(len(query.inputs))[rows]
        encodings, classes = self.encoded_reference(query.inputs)
        with torch.no_grad():
            latents = self.encoder.encode(query.inputs[rows])
        prototypes = nearest_mean(latents, labels, encodings, classes, self.neighbors)
        return lambda images, places: self.theta * (self.encoder.encode(images) - prototypes[places]).square().sum(1)

    @torch.no_grad()
    def encoded_reference(self, like: Tensor) -> tuple[Tensor, Tensor]:
        r"""Latents of the reference images (M, D) and the classes f calls them (M,), computed once."""
        if self._encoded is None:
            chunks = [self._encode_chunk(chunk.to(like)) for chunk in self.reference.split(CHUNK)]
            self._encoded = torch.cat([z for z, _ in chunks]), torch.cat([labels for _, labels in chunks])
        encodings, classes = self._encoded
        return encodings.to(like), classes.to(like.device)

    def _encode_chunk(self, images: Tensor) -> tuple[Tensor, Tensor]:
        latents = self.encoder.encode(images)
        output = self.forward_func(images)
        if output.ndim > 2:
            received = tuple(output.shape)
            raise ValueError(f"PrototypeCounterfactual needs outputs of shape (N, classes), received {received}")
        classes = class_probabilities(output, self.output).argmax(1)
        # A reference image that the generator cannot encode must not spoil the prototypes.
        return latents, torch.where(latents.isfinite().all(1), classes, NO_CLASS)


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
    for label in labels.unique():
        candidates = encodings[classes == label]
        if not len(candidates):
            raise ValueError(f"the model calls none of the {len(encodings)} reference images {int(label)}: add some")
        chosen = labels == label
        # Not by way of a matrix product: its rounding depends on the size of the batch.
        distances = torch.cdist(latents[chosen], candidates, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distances.topk(min(neighbors, len(candidates)), largest=False).indices
        prototypes[chosen] = candidates[nearest].mean(1)
    return prototypes
