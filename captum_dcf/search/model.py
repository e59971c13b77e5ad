r"""The model that is explained: from images, and the examples they belong to, to checked outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from captum_dcf.search.memory import is_out_of_memory

__all__ = ["OUTPUT_KINDS", "Model", "OutputKind", "Select"]

OutputKind = Literal["logits", "probabilities", "binary_logit"]
OUTPUT_KINDS = ("logits", "probabilities", "binary_logit")
Select = str | int | Callable[[Any], Tensor] | None


@dataclass(frozen=True)
class Model:
    r"""A forward function, its further arguments, and how its output is to be read.

    Attributes:
        forward_func: Images (n, ...) and further arguments to an output.
        examples: N, the number of examples of the call.
        arguments: Further arguments. Tensors whose first dimension is N hold one entry per example; everything else is
            passed as it is.
        kind: What the output is: ``"logits"`` or ``"probabilities"`` (n, C), or ``"binary_logit"``, (n,) or (n, 1),
            positive for class 1; all three are passed on as logits (n, C). None passes the output on as it is.
        select: Which part of the output is meant, where it is no tensor: a name, an index, or a function of it. By
            default ``.logits`` of an object, ``["logits"]`` of a mapping, the first of a tuple or list.
        normalize: Mean and standard deviation by which pixels are standardised, a number or one per channel each, or
            tensors of that, for models that expect it.
        pick: From an output and the rows it belongs to, what the target names, see ``captum_dcf.attr``.
    """

    forward_func: Callable[..., Any]
    examples: int
    arguments: tuple[Any, ...] = ()
    kind: OutputKind | None = "logits"
    select: Select = None
    normalize: tuple[Any, ...] | None = None
    pick: Callable[[Tensor, Tensor], Tensor] | None = None

    def __call__(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        r"""The outputs for images, float32 or float64.

        Args:
            images: (n, ...).
            rows: The examples of the call they belong to, int64 (n,). None for images of no example, such as
                references: of those only the output of all classes is known.

        Raises:
            TypeError: The output, or the part of it that is meant, is no tensor.
            ValueError: The model cannot take the images, or gives outputs that a search cannot use.
        """
        # A tensor that the model may write into: many do, such as a ReLU in place or torchvision's Normalize.
        own = images.clone() if self.normalize is None else self._normalized(images)
        output = self._called(own, [self._of_rows(argument, rows) for argument in self.arguments])
        if self.select is not None or not isinstance(output, Tensor):
            output = _selected(output, self.select)
        _check_output(output, len(images))
        if output.dtype not in (torch.float32, torch.float64):
            output = output.float()
        if self.pick is not None and rows is not None:
            output = self.pick(output, rows)
        return output if self.kind in (None, "logits") else _as_logits(output, self.kind)

    def check(self, output: Tensor) -> None:
        r"""Raises a ValueError if what were to be probabilities are not: asked of the logits of inputs."""
        if self.kind == "probabilities":
            totals = output.detach().exp().sum(1)
            if not ((totals - 1).abs() <= 1e-2).all():
                raise ValueError(
                    "output='probabilities' needs rows that are at least 0 and sum to 1; for logits say output='logits'"
                )

    def _normalized(self, images: Tensor) -> Tensor:
        wide = (-1, *[1] * (images.ndim - 2))
        mean, deviation = (torch.as_tensor(value).to(images).reshape(wide) for value in self.normalize or (0.0, 1.0))
        return (images - mean) / deviation

    def _called(self, images: Tensor, arguments: list[Any]) -> Any:
        shape, dtype, device = tuple(images.shape), images.dtype, images.device
        try:
            return self.forward_func(images, *arguments)
        except (RuntimeError, IndexError) as error:
            # Torch says this of shapes and dtypes that do not fit. Kinds of its own (out of memory) are no wrong input.
            if type(error) not in (RuntimeError, IndexError) or is_out_of_memory(error):
                raise
            raise ValueError(f"forward_func failed on images of shape {shape}, {dtype} on {device}: {error}") from error

    def _of_rows(self, argument: Any, rows: Tensor | None) -> Any:
        if not isinstance(argument, Tensor):
            return argument
        if argument.ndim > 0 and len(argument) == self.examples:
            if rows is None:
                raise ValueError(
                    f"additional_forward_args hold one entry for each of the {self.examples} examples, and none for "
                    "reference images: bind them to forward_func, or omit them"
                )
            return argument[rows.to(argument.device)]
        # One that was made in inference mode cannot be differentiated through; its copy can.
        return argument.clone()


def _selected(output: Any, select: Select) -> Any:
    """The tensor that is meant."""
    if callable(select):
        return select(output)
    if select is not None:
        return _part(output, select)
    if isinstance(output, Mapping):
        return output.get("logits", output)
    if getattr(output, "logits", None) is not None:
        return output.logits
    return output[0] if isinstance(output, (tuple, list)) and output else output


def _part(output: Any, select: str | int) -> Any:
    try:
        # Of a mapping the entry is meant, not a method of the same name, such as "values".
        is_attribute = isinstance(select, str) and not isinstance(output, Mapping)
        return getattr(output, str(select)) if is_attribute else output[select]
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        known = f" with {sorted(map(str, output))}" if isinstance(output, Mapping) else ""
        raise ValueError(
            f"select={select!r} names no part of what forward_func returns, a {type(output).__name__}{known}"
        ) from error


def _check_output(output: Any, images: int) -> None:
    if not isinstance(output, Tensor):
        raise TypeError(
            f"forward_func must return a tensor, something with .logits, or a tuple that begins with one; received "
            f"{type(output).__name__}: say which part is meant by select="
        )
    if output.ndim == 0 or len(output) != images:
        raise ValueError(f"forward_func must give one output per example: {tuple(output.shape)} for {images} images")
    if not output.is_floating_point():
        raise ValueError(
            f"forward_func must give floating point outputs that can be differentiated, received {output.dtype}"
        )


def _as_logits(output: Tensor, kind: OutputKind | None) -> Tensor:
    """Logits of all classes, (n, C), of probabilities or one logit: a log-probability is a logit up to a constant."""
    if kind == "probabilities":
        # What is clearly negative is no probability; what is so by rounding counts as zero.
        return torch.where(output < -1e-2, torch.nan, output.clamp_min(torch.finfo(output.dtype).tiny)).log()
    if output.ndim > 2 or (output.ndim == 2 and output.shape[1] != 1):
        raise ValueError(f"a binary logit must have the shape (n,) or (n, 1), received {tuple(output.shape)}")
    logit = output.flatten()
    return torch.stack((torch.zeros_like(logit), logit), 1)
