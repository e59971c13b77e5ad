r"""The two spaces that methods search in: the latents of a generator, and pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_dcf.attr._checks import check_data_range
from captum_dcf.attr.counterfactual import CounterfactualAttribution, ModelOptions
from captum_dcf.generators.pixels import Pixels
from captum_dcf.search import Coordinates, Options

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["STEPS_PER_TYPICAL_LENGTH", "LatentMethod", "PixelMethod"]

# Steps that a search would need to walk the typical length of a latent. For a standard normal in the 784 dimensions of
# MNIST this is a step of length 1, the best of those tried there (0.5, 1, 2); elsewhere the length scales with √D.
STEPS_PER_TYPICAL_LENGTH = 28


class LatentMethod(CounterfactualAttribution):
    r"""A method that searches in the coordinates of a generator.

    Args:
        forward_func: The model: images (N, ...), and additional arguments, to outputs.
        generator: Coordinates of the data: exact for a flow, approximate for an autoencoder or a GAN.
        model_options: ``output``, ``select``, ``normalize``: see :class:`CounterfactualAttribution`.
    """

    def __init__(
        self, forward_func: Callable[..., Any], generator: Coordinates, **model_options: Unpack[ModelOptions]
    ) -> None:
        super().__init__(forward_func, **model_options)
        _check_generator(generator)
        self.generator = generator

    def coordinates(self, inputs: Tensor) -> Coordinates:
        return self.generator

    def modules(self) -> list[nn.Module]:
        return [*super().modules(), *([self.generator] if isinstance(self.generator, nn.Module) else [])]

    def default_length(self, z: Tensor) -> Tensor:
        r"""1/28 of the length that latents like ``z`` (n, D) typically have, a tensor without dimensions.

        Raises:
            ValueError: The generator says no positive and finite length.
        """
        length = torch.as_tensor(self.generator.typical_length(z))
        if not 0 < float(length) < math.inf:
            raise ValueError(
                f"{type(self.generator).__name__}.typical_length must be positive and finite, received "
                f"{float(length)}: say how long a step is to be, for instance step_rule=UnitGradient(1.0)"
            )
        return length / STEPS_PER_TYPICAL_LENGTH


class PixelMethod(CounterfactualAttribution):
    r"""A method that searches in the pixels themselves and needs no generator.

    Args:
        forward_func: The model: images (N, ...), and additional arguments, to outputs.
        data_range: Least and greatest pixel value, None for no bounds.
        model_options: ``output``, ``select``, ``normalize``: see :class:`CounterfactualAttribution`.
    """

    has_latents = False

    def __init__(
        self,
        forward_func: Callable[..., Any],
        data_range: tuple[float, float] | None = (0.0, 1.0),
        **model_options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(forward_func, **model_options)
        if isinstance(data_range, nn.Module):
            name = type(self).__name__
            raise TypeError(
                f"{name} searches in pixels and takes no generator: give it data_range=(0.0, 1.0), and ask the result "
                "for latents by result.with_latents(generator)"
            )
        check_data_range(data_range)
        self.data_range = data_range

    def coordinates(self, inputs: Tensor) -> Coordinates:
        return Pixels(tuple(inputs.shape[1:]), self.data_range)

    def check_options(self, options: Options) -> None:
        if options.latents is not None:
            raise ValueError(f"{type(self).__name__} searches in pixels: it accepts latents=None only")


def _check_generator(generator: Any) -> None:
    if isinstance(generator, Coordinates) and not isinstance(generator, type):
        return
    if isinstance(generator, type):
        raise TypeError(
            f"generator must be a captum_dcf Generator, received the class {generator.__name__}: make one of it"
        )
    name = type(generator).__name__
    if type(generator).__module__.split(".")[0] == "normflows":
        raise TypeError(
            f"generator must be a captum_dcf Generator, received {name}: wrap it in NormalizingFlowGenerator"
        )
    missing = [part for part in ("encode", "decode") if not hasattr(generator, part)]
    lacks = f", which has no {' and no '.join(missing)}" if missing else ", which does not derive from Generator"
    raise TypeError(f"generator must be a captum_dcf Generator, received {name}{lacks}")
