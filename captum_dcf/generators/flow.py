r"""Normalizing flows of normflows as generators: exact coordinates, with a density."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import normflows as nf
import torch
from torch import Tensor, nn

from captum_dcf.generators.base import Generator
from captum_dcf.generators.constant import (
    ConstantLayer,
    LayerStack,
    LogDets,
    constant_layers,
    run_inverse,
    run_layers,
)
from captum_dcf.generators.reversible import run_reversibly

__all__ = ["NormalizingFlowGenerator"]

_RUNNERS = {"full": run_layers, "constant": run_reversibly}


class NormalizingFlowGenerator(Generator):
    r"""A normflows ``NormalizingFlow`` or ``MultiscaleFlow`` as the generator of a search.

    Latents of a multi-scale flow, a list of tensors (coarsest first), are packed into one (N, D). They are the flow's
    own: not standardised by a learned base distribution. Models with a transform (logit, dequantisation) work as they
    are as long as it draws no noise.

    Args:
        flow: The flow, in evaluation mode, over images (N, C, H, W) or over rows of pixels (N, D).
        data_range: Least and greatest pixel value of the images it was trained on, None for data without bounds.
        latent_shapes: Shape of each latent tensor without the batch; read off the base distributions by default.
        memory: What a search keeps for the gradient: ``"full"``, all activations, or ``"constant"``, the output of each
            level alone, so that memory does not grow with the number of steps of flow. The latter takes about half
            more time. Only a search (:meth:`constant`) makes use of it: elsewhere parameters may want gradients too.
        image_shape: Shape of one image, (C, H, W), for a flow over rows of pixels.

    Raises:
        TypeError: ``flow`` is neither of the two, or it is conditional.
        ValueError: A base distribution has no ``shape`` and ``latent_shapes`` is not given, a layer has no inverse, or
            ``memory`` is unknown.
    """

    exact = True

    def __init__(
        self,
        flow: nf.NormalizingFlow | nf.MultiscaleFlow,
        data_range: tuple[float, float] | None = (0.0, 1.0),
        latent_shapes: Sequence[Sequence[int]] | None = None,
        memory: Literal["full", "constant"] = "full",
        image_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(flow, (nf.NormalizingFlow, nf.MultiscaleFlow)):
            raise TypeError(f"flow must be a NormalizingFlow or MultiscaleFlow of normflows, not {type(flow).__name__}")
        if isinstance(flow, nf.ConditionalNormalizingFlow):
            raise TypeError(
                f"flow must be unconditional, received {type(flow).__name__}, which needs a context for each image"
            )
        _check_invertible(flow)
        if memory not in tuple(_RUNNERS):
            raise ValueError(f"memory must be one of {tuple(_RUNNERS)}, received {memory!r}")
        self.flow = flow
        self.data_range = data_range
        self.latent_shapes = _shapes_of_bases(self._bases()) if latent_shapes is None else [*map(tuple, latent_shapes)]
        self.memory = memory
        self.image_shape = None if image_shape is None else tuple(image_shape)
        self._layers = LayerStack()

    def encode(self, x: Tensor) -> Tensor:
        r"""Images (N, C, H, W) to latents (N, D).

        Raises:
            ValueError: The flow is over images of another shape.
        """
        x = self._as_flow_data(x)
        levels = self._layers.innermost
        if levels is not None:
            return torch.cat([latent.flatten(1) for latent in self._encode_constant(x, levels)], dim=1)
        if isinstance(self.flow, nf.MultiscaleFlow):
            latents, _ = self.flow.inverse_and_log_det(x)
            return torch.cat([z.flatten(1) for z in latents], dim=1)
        z: Tensor = self.flow.inverse(x)
        return z.flatten(1)

    def decode(self, z: Tensor) -> Tensor:
        r"""Latents (N, D) to images (N, C, H, W).

        Raises:
            ValueError: Latents of another shape.
        """
        latents, levels = self._unpack(z), self._layers.innermost
        if levels is not None:
            x = self._decode_constant(latents, levels, None)
        elif isinstance(self.flow, nf.MultiscaleFlow):
            x = self.flow.forward_and_log_det(latents)[0]
        else:
            x = self.flow.forward(latents[0])
        return x if self.image_shape is None else x.reshape(len(z), *self.image_shape)

    def decode_with_log_prob(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        r"""Images (N, C, H, W) of latents (N, D), and their log-density in nats, (N,), both differentiable.

        The density is that of the image that is decoded: the log-determinants are by-products of decoding, so it costs
        a tenth of what a call of :meth:`log_prob` does. A class-conditional flow has none of an image alone: None.

        Raises:
            ValueError: Latents of another shape.
        """
        if not self.has_density:
            return self.decode(z), None
        with self.constant() if self._layers.innermost is None else nullcontext():
            log_dets: LogDets = []
            x = self._decode_constant(self._unpack(z), self._layers.innermost or [], log_dets)
        x = x if self.image_shape is None else x.reshape(len(z), *self.image_shape)
        return x, self._density(self._unpack(z), log_dets)

    @property
    def has_density(self) -> bool:
        r"""Whether an image has a density: not under a class-conditional flow, which has one for each class."""
        # Not the flow's own class_cond, which normflows sets by default whether or not its bases know of classes.
        return not any(_knows_classes(base) for base in self._bases())

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Log-density of images in nats, (N,); of the images as they are, without dequantisation noise.

        Raises:
            TypeError: The flow is class-conditional: it has a density only together with a class.
            ValueError: The flow is over images of another shape.
        """
        if not self.has_density:
            raise TypeError("a class-conditional flow has no density of an image alone")
        x, levels = self._as_flow_data(x), self._layers.innermost
        if levels is not None:
            log_dets: LogDets = []
            return self._density(self._encode_constant(x, levels, log_dets), log_dets)
        is_multiscale = isinstance(self.flow, nf.MultiscaleFlow)
        density: Tensor = self.flow.log_prob(x, None) if is_multiscale else self.flow.log_prob(x)
        return density

    def typical_length(self, z: Tensor) -> Tensor:
        r"""√(sum of the variances of the base distribution): √D for a standard normal.

        Raises:
            ValueError: No coordinate is free, or the scales of the base distribution overflow or vanish.
        """
        length = super().typical_length(z)
        scales = [base.log_scale for base in self._bases() if hasattr(base, "log_scale")]
        if [scale.numel() for scale in scales] != self._sizes():
            return length
        variances = torch.cat([(2 * scale.detach()).exp().flatten() for scale in scales])
        length = variances[self.free].sum().sqrt().to(z)
        if not 0 < length < math.inf:
            raise ValueError(f"the log_scale of the base distribution gives latents of length {length.item()}")
        return length

    @contextmanager
    def constant(self) -> Iterator[None]:
        r"""A context in which the weights of 1×1 convolutions are assembled and inverted once, not at every call.

        What is decoded within it can be differentiated in the latents only. It holds for the thread that enters it.
        """
        levels = self.flow.flows if isinstance(self.flow, nf.MultiscaleFlow) else [self.flow.flows]
        with self._layers.entered([constant_layers(level) for level in levels]):
            yield

    def _encode_constant(
        self, x: Tensor, levels: list[list[ConstantLayer]], log_dets: LogDets | None = None
    ) -> list[Tensor]:
        transform = getattr(self.flow, "transform", None)
        z, log_det = (x, 0.0) if transform is None else transform.inverse(x)
        if log_dets is not None:
            log_dets.append(-torch.as_tensor(log_det).to(z))
        latents: list[Tensor] = []
        for level in reversed(range(len(levels))):
            z = run_inverse(levels[level], z, log_dets)
            if level > 0:
                (z, left_behind), _ = self.flow.merges[level - 1].inverse(z)
                latents.insert(0, left_behind)
        return [z, *latents]

    def _decode_constant(
        self, latents: list[Tensor], levels: list[list[ConstantLayer]], log_dets: LogDets | None
    ) -> Tensor:
        z = latents[0]
        for level, layers in enumerate(levels):
            if level > 0:
                z, _ = self.flow.merges[level - 1]([z, latents[level]])
            z = _RUNNERS[self.memory](layers, z, log_dets)
        transform = getattr(self.flow, "transform", None)
        if transform is None:
            return z
        # A copy: Shift writes into what it is given, and the layers may still need that for the gradient.
        x: Tensor
        x, log_det = transform(z.clone())
        if log_dets is not None:
            log_dets.append(torch.as_tensor(log_det).to(z))
        return x

    def _density(self, latents: list[Tensor], log_dets: LogDets) -> Tensor:
        """Log q (N,) of the images that layers of these log-determinants make of these latents."""
        log_prob = latents[0].new_zeros(len(latents[0]))
        for base, latent in zip(self._bases(), latents):
            log_prob = log_prob + base.log_prob(latent)
        for log_det in log_dets:
            log_prob = log_prob - log_det
        return log_prob

    # Layers and transforms may write into what they are given, as normflows' Shift does: they get copies.

    def _unpack(self, z: Tensor) -> list[Tensor]:
        sizes = self._sizes()
        if z.ndim != 2 or z.shape[1] != sum(sizes):
            raise ValueError(f"latents must have the shape (N, {sum(sizes)}), received {tuple(z.shape)}")
        return [
            part.reshape(len(z), *shape).clone() for part, shape in zip(torch.split(z, sizes, 1), self.latent_shapes)
        ]

    def _as_flow_data(self, x: Tensor) -> Tensor:
        flow, received = f"the flow of {type(self).__name__}", tuple(x.shape)
        if self.image_shape is not None:
            if received[1:] != self.image_shape:
                raise ValueError(f"{flow} takes images of shape {self.image_shape}, received a batch {received}")
            return x.flatten(1).clone()
        if x.ndim > 2 and [len(shape) for shape in self.latent_shapes] == [1]:
            raise ValueError(
                f"{flow} is over rows of {self.latent_shapes[0][0]} pixels: give it image_shape={received[1:]}"
            )
        if math.prod(received[1:]) != sum(self._sizes()):
            raise ValueError(
                f"{flow} takes images of {sum(self._sizes())} values each, "
                f"received {received}, {math.prod(received[1:])} each"
            )
        dimensions = 1 + min(map(len, self.latent_shapes))
        if x.ndim < dimensions:
            raise ValueError(f"{flow} takes batches of images of {dimensions} dimensions in all, received {received}")
        return x.clone()

    def _sizes(self) -> list[int]:
        return [math.prod(shape) for shape in self.latent_shapes]

    def _bases(self) -> list[Any]:
        return list(self.flow.q0) if isinstance(self.flow, nf.MultiscaleFlow) else [self.flow.q0]


def _check_invertible(flow: nn.Module) -> None:
    for name, layer in flow.named_modules():
        lacks_inverse = isinstance(layer, nf.flows.Flow) and type(layer).inverse is nf.flows.Flow.inverse
        # Of planar flows only those with a leaky ReLU have one.
        if lacks_inverse or (isinstance(layer, nf.flows.Planar) and layer.act != "leaky_relu"):
            raise ValueError(
                f"NormalizingFlowGenerator needs the inverse of each layer: {name} ({type(layer).__name__}) has none"
            )


def _knows_classes(base: Any) -> bool:
    return isinstance(base, nf.distributions.ClassCondDiagGaussian) or getattr(base, "class_cond", False)


def _shapes_of_bases(bases: list[Any]) -> list[tuple[int, ...]]:
    for base in bases:
        if not hasattr(base, "shape"):
            raise ValueError(f"the base distribution {type(base).__name__} has no shape: pass latent_shapes")
    return [tuple(base.shape) for base in bases]
