r"""How metrics ask their judges: networks, and functions that call one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from captum_dcf.generators.base import Generator
from captum_dcf.metrics._arguments import result_dtype

__all__ = ["ForwardFunc", "OutputKind", "ask", "check_judge", "class_probabilities", "encoded"]

ForwardFunc = Callable[..., Tensor]
OutputKind = Literal["logits", "probabilities", "binary_logit"]

# The sum of probabilities in half precision, rounded for each class.
_TOLERANCE = 1e-2
# Images that a generator is given at a time: more are no faster, and need the memory.
_IMAGES_AT_ONCE = 256


def check_judge(judge: Any) -> None:
    r"""Refuses a module, or a method or partial of one, that answers at random, by the rest of the batch, or untrained.

    Raises:
        ValueError: It uses batch statistics, is in training mode with dropout or running statistics, or is a generator
            that is not ready.
    """
    while isinstance(judge, partial):
        judge = judge.func
    module = judge if isinstance(judge, nn.Module) else getattr(judge, "__self__", None)
    if not isinstance(module, nn.Module):
        return
    if isinstance(module, Generator):
        module.check_ready()
    for name, part in module.named_modules():
        if _is_unsteady(part):
            place = f"{type(module).__name__}.{name}" if name else type(module).__name__
            mode = "is in training mode" if part.training else "uses batch statistics"
            raise ValueError(
                f"{place} ({type(part).__name__}) {mode}: a judge must answer each image by itself and always alike; "
                "call .eval() on it, and train it with running statistics"
            )


def ask(judge: ForwardFunc, images: Tensor, additional_forward_args: Any = None) -> Tensor:
    r"""What a judge gives for images.

    It gets a copy of them, since many a network writes into its input.

    Args:
        judge: A module or function of images.
        images: (N, ...).
        additional_forward_args: Further arguments in Captum's manner: None, one argument, or a tuple of them.

    Raises:
        TypeError: The judge does not give a tensor.
        ValueError: :func:`check_judge` refuses it.
    """
    check_judge(judge)
    if additional_forward_args is None:
        additional_forward_args = ()
    elif not isinstance(additional_forward_args, tuple):
        additional_forward_args = (additional_forward_args,)
    answer = judge(images.clone(), *additional_forward_args)
    if not isinstance(answer, Tensor):
        raise TypeError(f"{judge!r} must give a tensor, received {type(answer).__name__}; wrap it in a function")
    return answer


def encoded(generator: Generator, images: Tensor) -> Tensor:
    r"""Latents (N, D) of images (N, ...), one or more, in batches; layers that are constant are assembled once.

    Raises:
        ValueError: :func:`check_judge` refuses the generator.
    """
    check_judge(generator)
    with generator.constant():
        # Copies, since an encoder may write into its input.
        return torch.cat([generator.encode(batch.clone()) for batch in images.split(_IMAGES_AT_ONCE)])


def class_probabilities(
    classifier: ForwardFunc,
    images: Tensor,
    classes: Tensor,
    output: OutputKind = "logits",
    additional_forward_args: Any = None,
) -> Tensor:
    r"""Probabilities (N, C) that a classifier gives images; of no images (0, 1), without asking it.

    Args:
        classifier: Gives ``output``.
        images: (N, ...).
        classes: Classes that it must have, (N,).
        output: "logits" or "probabilities" (N, C), or "binary_logit" (N,) or (N, 1), the logit of class 1.
        additional_forward_args: Further arguments of ``classifier``, one or a tuple.

    Raises:
        ValueError: Another ``output``, or the classifier gives something else, or has no such class.
    """
    if output not in get_args(OutputKind):
        raise ValueError(f"output must be one of {get_args(OutputKind)}, received {output!r}")
    if len(images) == 0:
        return images.new_zeros((0, 1), dtype=result_dtype(images))
    given = ask(classifier, images, additional_forward_args)
    probabilities = _as_probabilities(given.to(result_dtype(images, given)), len(images), output)
    if (classes >= probabilities.shape[1]).any():
        raise ValueError(
            f"the classifier has the classes 0 to {probabilities.shape[1] - 1}, received class {int(classes.max())}"
        )
    return probabilities


def _as_probabilities(given: Tensor, count: int, output: OutputKind) -> Tensor:
    if output == "binary_logit":
        if given.shape not in ((count,), (count, 1)):
            raise ValueError(f"a binary logit must have the shape ({count},) or ({count}, 1), {_received(given)}")
        logit = given.reshape(count, 1)
        return torch.cat((-logit, logit), dim=1).sigmoid()
    if given.dim() != 2 or len(given) != count or given.shape[1] < 2:
        raise ValueError(
            f"{output} of {count} images must have the shape ({count}, classes) with two classes or more, "
            f"{_received(given)}; for one logit say output='binary_logit'"
        )
    if output == "logits":
        return given.softmax(1)
    # A NaN is no wrong kind of output.
    if (given < 0).any() or ((given.sum(1) - 1).abs() > _TOLERANCE).any():
        raise ValueError(
            "output='probabilities' needs rows of at least 0 that sum to 1; for logits say output='logits'"
        )
    return given


def _received(given: Tensor) -> str:
    return f"received {tuple(given.shape)}"


def _is_unsteady(part: nn.Module) -> bool:
    if isinstance(part, nn.modules.batchnorm._BatchNorm):
        return part.training or part.running_mean is None
    if isinstance(part, nn.modules.instancenorm._InstanceNorm):
        return part.training and part.running_mean is not None
    if isinstance(part, nn.modules.dropout._DropoutNd):
        return part.training and part.p > 0
    if isinstance(part, (nn.RNNBase, nn.MultiheadAttention)):
        return part.training and part.dropout > 0
    return part.training and isinstance(part, nn.RReLU)
