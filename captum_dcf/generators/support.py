r"""How plausible a generator's training images are to itself: measured once, kept on its card."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_dcf.generators.base import Generator
from captum_dcf.search.support import Measured, Support

__all__ = ["Support", "measure_support", "plausibility"]

# Images at a time.
BATCH = 100
PERCENT = 100


def measure_support(generator: Generator, images: Tensor) -> Support:
    r"""The support of the data by some of a generator's training images, to be set as ``generator.support``.

    A search then holds its images above a low percentile of it, see ``min_percentile`` of
    :class:`~captum_dcf.search.Options`.

    Args:
        generator: The generator, trained.
        images: Training images (N, C, H, W), two or more; 1,000 give the first percentile to about ten images.

    Raises:
        ValueError: Fewer than two images, or the generator finds no image plausible: its log q or latents are not
            finite.
    """
    if len(images) < 2:
        raise ValueError(f"the support of the data takes two images or more, received {len(images)}")
    measured, values = plausibility(generator, images)
    values = values.cpu().double()
    finite = values[values.isfinite()]
    if len(finite) < 2:
        name = type(generator).__name__
        raise ValueError(f"{name} gives only {len(finite)} of {len(images)} images a finite {measured}")
    shares = torch.linspace(0, 1, PERCENT + 1, dtype=torch.float64)
    return Support(measured, tuple(finite.quantile(shares).tolist()))


@torch.no_grad()
def plausibility(generator: Generator, images: Tensor) -> tuple[Measured, Tensor]:
    r"""What the plausibility is, and that of each image (N,): log q in nats, or minus the length of the latent.

    Pixels beyond the range of the generator are put on its bounds first.
    """
    bounds = generator.data_range
    with generator.constant():
        batches = [batch if bounds is None else batch.clamp(*bounds) for batch in images.split(BATCH)]
        try:
            return "log_prob", torch.cat([generator.log_prob(batch) for batch in batches])
        except TypeError:
            return "latent_length", torch.cat([-generator.encode(batch).norm(dim=1) for batch in batches])
