r"""The paper's search as published: one image at a time, Adam, every parameter requiring gradients.

Written from the description of Dombrowski et al. (2024), algorithm 1, and independent of captum_dcf's engine: it is
what ``speed.py`` compares with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_dcf import Generator

__all__ = ["Answer", "search"]


@dataclass(frozen=True)
class Answer:
    r"""What the search of one image found."""

    image: Tensor  # (1, C, H, W)
    latent_distance: float
    decodes: int
    found: bool


def search(
    classifier: nn.Module,
    generator: Generator,
    image: Tensor,
    target: int,
    confidence: float,
    learning_rate: float,
    max_steps: int,
) -> Answer:
    r"""One counterfactual of one image (1, C, H, W) in [0, 1].

    The image is clipped straight through, the confidence is tested before each step. A search that leaves the finite
    numbers is ended there, which the published loop does not do: it would go on to its last step.
    """
    with torch.no_grad():
        start = generator.encode(image)
    z = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=learning_rate)
    label = torch.tensor([target], device=image.device)
    for step in range(max_steps + 1):
        decoded = generator.decode(z)
        clipped = decoded + (decoded.clamp(0, 1) - decoded).detach()
        logits = classifier(clipped)
        probability = float(logits.detach().softmax(1)[0, target])
        if not confidence >= probability or step == max_steps:
            break
        optimizer.zero_grad()
        F.cross_entropy(logits, label).backward()
        optimizer.step()
    distance = float((z.detach() - start).norm())
    return Answer(clipped.detach(), distance, step + 1, found=probability > confidence)
