r"""Pictures of a generator that is being trained: samples, and held-out images beside their reconstructions."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from captum_dcf.data.files import write_image
from captum_dcf.generators import Generator
from captum_dcf.training.checkpoint import write_whole

__all__ = ["draw_samples", "image_grid", "write_pictures"]

COLUMNS = 8
# A picture of images smaller than this is enlarged, pixel by pixel, so that they can be looked at.
LEGIBLE = 64


@torch.no_grad()
def write_pictures(generator: Generator, images: Tensor, samples: Path, reconstructions: Path) -> None:
    r"""Writes a grid of samples, and one in which each row of images is followed by a row of their reconstructions.

    Args:
        generator: A generator of images, in evaluation mode.
        images: Held-out images (N, C, H, W) in [0, 1], C one or three, N a multiple of eight.
        samples: File of the samples, N of them.
        reconstructions: File of the reconstructions.

    Raises:
        OSError: A file cannot be written.
    """
    drawn, decoded = draw_samples(generator, images), generator(images)
    rows = [row for pair in zip(images.split(COLUMNS), decoded.split(COLUMNS)) for row in pair]
    for path, shown in ((samples, drawn), (reconstructions, torch.cat(rows))):
        picture = image_grid(shown.nan_to_num(0, 1, 0))
        write_whole(path, lambda place, picture=picture: write_image(picture, place))  # type: ignore[misc]


@torch.no_grad()
def draw_samples(generator: Generator, images: Tensor) -> Tensor:
    r"""As many samples as there are images, (N, C, H, W).

    Latents of exact coordinates, a flow's, are drawn from a standard normal distribution, those of others from normal
    distributions with the mean and the deviation that each latent coordinate has over ``images``.
    """
    latents = generator.encode(images)
    noise = torch.randn(latents.shape).to(latents)
    if generator.exact:
        return generator.decode(noise)
    return generator.decode(latents.mean(0) + latents.std(0) * noise)


def image_grid(images: Tensor) -> Tensor:
    r"""Images (N, C, H, W) in rows of eight as one (C, rows · H, 8 · W); one pixel of white between them."""
    scale = max(1, LEGIBLE // images.shape[-1])
    large = functional.pad(images.repeat_interleave(scale, 2).repeat_interleave(scale, 3), (0, 1, 0, 1), value=1.0)
    large = torch.cat((large, large.new_ones(-len(large) % COLUMNS, *large.shape[1:])))
    return torch.cat([torch.cat(list(row), dim=2) for row in large.split(COLUMNS)], dim=1)
