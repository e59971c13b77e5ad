r"""How a model is shown the images of a generator: scaled, resized, in colour and standardised as it expects them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_dcf.loading import fault
from captum_dcf.search import Model
from captum_dcf.search.memory import is_out_of_memory

__all__ = ["Normalize", "Shown", "fitted", "parse_normalize", "resized"]

Normalize = tuple[tuple[float, ...], tuple[float, ...]]
# Mean and standard deviation of ImageNet, by which torchvision's and most of timm's models are trained.
IMAGENET: Normalize = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Square images that a model which does not take the generator's is asked about, the usual ones first.
SIZES = (224, 256, 32, 28, 64, 128, 299, 384, 96, 48, 512)
# What models raise for images of a shape that they do not take; vision transformers assert it.
REFUSALS = (RuntimeError, ValueError, IndexError, AssertionError)


@dataclass(frozen=True, eq=False)
class Shown:
    r"""A model that is given images of a generator as it expects them; differentiable, rows independent.

    Attributes:
        model: Images (n, C, H, W) to outputs.
        data_range: That of the generator's pixels, which are scaled to [0, 1]; None leaves them as they are.
        size: Height and width that images are resized to; None leaves them as they are.
        in_colour: Whether grey images are repeated to three equal channels.
        normalize: Mean and standard deviation by which pixels in [0, 1] are standardised, a number or one per channel.
    """

    model: Callable[..., Any]
    data_range: tuple[float, float] | None = (0.0, 1.0)
    size: tuple[int, int] | None = None
    in_colour: bool = False
    normalize: Normalize | None = None

    def __call__(self, images: Tensor) -> Any:
        r"""The outputs of images (n, C, H, W) with pixels in ``data_range``."""
        if self.data_range is not None and self.data_range != (0.0, 1.0):
            low, high = self.data_range
            images = (images - low) / (high - low)
        if self.size is not None:
            images = resized(images, self.size)
        if self.in_colour:
            images = images.expand(-1, 3, -1, -1).contiguous()
        if self.normalize is not None:
            mean, deviation = (images.new_tensor(part).view(1, -1, 1, 1) for part in self.normalize)
            images = (images - mean) / deviation
        return self.model(images)

    def takes(self, image: Tensor) -> Exception | None:
        r"""What the model raises when it is asked about an image (1, C, H, W); None where it answers.

        Raises:
            ValueError: It raises something that is not about the shape of the image.
        """
        try:
            with torch.no_grad():
                Model(self, len(image), kind=None)(image)
        except REFUSALS as error:
            if is_out_of_memory(error):
                raise
            return error
        except Exception as error:
            raise ValueError(f"the model failed on an image {_shape(image)} in {fault(error)}") from error
        return None


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    r"""Images (n, C, H, W) at another height and width, bilinear; smaller ones are smoothed first (antialiased)."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    shrinks = any(new < old for new, old in zip(size, images.shape[2:]))
    return F.interpolate(images, size, mode="bilinear", antialias=shrinks)


def fitted(
    model: Callable[..., Any],
    image: Tensor,
    data_range: tuple[float, float] | None,
    normalize: Normalize | None = None,
    model_size: int | None = None,
) -> Shown:
    r"""The model as it takes images of a generator: found by asking it about one of them.

    It is asked about the generator's size first, then about the usual ones; about grey images as they are, then in
    three equal channels. A model that takes any size is shown the generator's: at which it was trained it cannot say.

    Args:
        model: Images (n, C, H, W) to outputs.
        image: One image of the generator's shape, (1, C, H, W).
        data_range: That of the generator's pixels.
        normalize: Mean and standard deviation that the model expects.
        model_size: Height and width that the model expects, where it is known.

    Raises:
        ValueError: The model takes none of them, or only grey images where the generator's are coloured, or the numbers
            of ``normalize`` fit none.
    """
    channels = image.shape[1]
    plain = Shown(model, data_range, normalize=normalize)
    sizes: Iterable[int | None] = (None, *SIZES) if model_size is None else (model_size,)
    refusal: Exception | None = None
    for size in sizes:
        at = replace(plain, size=None if size is None else (size, size))
        for candidate in (at, replace(at, in_colour=True)) if channels == 1 else (at,):
            if not _normalizes(candidate, channels):
                continue
            error = candidate.takes(image)
            if error is None:
                return candidate
            # Of all refusals the first is about the images as they are.
            refusal = refusal or error
    if refusal is None:
        numbers = max(len(part) for part in normalize or ((), ()))
        raise ValueError(f"normalize has {numbers} numbers for mean or deviation, and images have {channels} channels")
    asked = "at any usual size (say model_size)" if model_size is None else f"at {model_size}×{model_size}"
    if channels == 3 and _takes_grey(plain, image, sizes):
        raise ValueError(
            "the model takes grey images (1 channel), and the generator's are coloured (3 channels): take a generator "
            "of grey images, or a model that takes colour"
        )
    if channels == 1 and not _normalizes(plain, channels):
        asked += ", in three channels, as normalize has three numbers"
    raise ValueError(f"the model takes no images like the generator's, {_shape(image)}, nor {asked}: {_line(refusal)}")


def parse_normalize(text: str) -> Normalize:
    r"""Mean and standard deviation of ``"imagenet"`` or ``"mean;deviation"``, one number or three by commas each.

    Raises:
        ValueError: It is neither, or a deviation is not above 0.
    """
    if text.strip().lower() == "imagenet":
        return IMAGENET
    try:
        mean, deviation = (tuple(float(number) for number in part.split(",")) for part in text.split(";"))
    except ValueError:
        raise ValueError(
            f'normalize must be imagenet or such as "0.5;0.5" (mean;deviation), received {text!r}'
        ) from None
    fits = {len(mean), len(deviation)} <= {1, 3} and all(map(math.isfinite, (*mean, *deviation)))
    if not fits or min(deviation) <= 0:
        raise ValueError(
            f"normalize must be one or three finite numbers each, deviations above 0, received mean {mean} and "
            f"deviation {deviation}"
        )
    return mean, deviation


def _normalizes(shown: Shown, channels: int) -> bool:
    wanted = 3 if shown.in_colour else channels
    return shown.normalize is None or all(len(part) in (1, wanted) for part in shown.normalize)


def _takes_grey(plain: Shown, image: Tensor, sizes: Iterable[int | None]) -> bool:
    normalize = None if plain.normalize is None else (plain.normalize[0][:1], plain.normalize[1][:1])
    grey = image.mean(1, keepdim=True)
    asked = (replace(plain, normalize=normalize, size=None if size is None else (size, size)) for size in sizes)
    return any(one.takes(grey) is None for one in asked)


def _shape(image: Tensor) -> str:
    return "×".join(map(str, image.shape[1:]))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
