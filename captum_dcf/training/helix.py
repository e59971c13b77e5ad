r"""Training the flow and the classifier of the helix experiment: plain loops over fresh points, no Lightning needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from captum_dcf.data.helix import helix_sample
from captum_dcf.generators.flow import NormalizingFlowGenerator
from captum_dcf.models.helix import helix_classifier, helix_flow

__all__ = ["fit_helix_classifier", "fit_helix_flow"]

Model = TypeVar("Model", bound=nn.Module)

# Not published: how often and on how many points the paper validates.
_VALIDATE_EVERY = 50
_VALIDATION_POINTS = 2000


def fit_helix_flow(
    steps: int = 5000, batch: int = 500, seed: int = 0, hidden: int = 256, learning_rate: float = 1e-4
) -> NormalizingFlowGenerator:
    r"""Fits a flow to the helix by maximum likelihood with Adam, and keeps the weights of the best validation.

    The defaults are the paper's; they take a few minutes on two cores.

    Args:
        steps: Steps of Adam.
        batch: Fresh points per step.
        seed: For the first weights and the points.
        hidden: Width of the coupling networks.
        learning_rate: Adam's learning rate.

    Returns:
        The flow, in evaluation mode.
    """

    def loss(flow: NormalizingFlowGenerator, points: Tensor, _: Tensor) -> Tensor:
        return -flow.log_prob(points).mean()

    return _fit(lambda: helix_flow(hidden), loss, steps, batch, seed, learning_rate)


def fit_helix_classifier(
    steps: int = 3000, batch: int = 500, seed: int = 0, hidden: int = 256, learning_rate: float = 1e-4
) -> nn.Sequential:
    r"""Fits the classifier of [z > 0] with binary cross-entropy and Adam, and keeps the weights of the best validation.

    Args:
        steps: Steps of Adam; the default is the paper's.
        batch: Fresh points per step.
        seed: For the first weights and the points.
        hidden: Width of the hidden layer.
        learning_rate: Adam's learning rate. The paper does not give it; the default is that of the flow. With a larger
            one the logit rises and falls along the helix, and a search can get caught between.

    Returns:
        The classifier, in evaluation mode; it gives one logit (N, 1).
    """

    def loss(classifier: nn.Sequential, points: Tensor, classes: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(classifier(points).squeeze(1), classes.to(points.dtype))

    return _fit(lambda: helix_classifier(hidden), loss, steps, batch, seed, learning_rate)


def _fit(
    build: Callable[[], Model],
    loss: Callable[[Model, Tensor, Tensor], Tensor],
    steps: int,
    batch: int,
    seed: int,
    learning_rate: float,
) -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
    source = torch.Generator().manual_seed(seed)
    held_out = helix_sample(_VALIDATION_POINTS, source)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    best, best_weights = float("inf"), _weights(model)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss(model, *helix_sample(batch, source)).backward()
        optimizer.step()
        if step % _VALIDATE_EVERY == 0 or step == steps:
            with torch.no_grad():
                validation = loss(model, *held_out).item()
            if validation < best:
                best, best_weights = validation, _weights(model)
    model.load_state_dict(best_weights)
    return model.eval()


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}
