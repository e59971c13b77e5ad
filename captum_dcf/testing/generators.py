r"""What a generator promises."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_dcf.search import Coordinates
from captum_dcf.testing.promise import check_images, is_near, largest, promise, run

__all__ = ["check_generator"]


def check_generator(generator: Coordinates, images: Tensor, tolerance: float = 1e-4) -> list[str]:
    r"""Checks coordinates of your own on some images.

    Args:
        generator: A :class:`~captum_dcf.Generator`, or any object with the methods of one.
        images: Two or more, (N, ...), within its range.
        tolerance: Largest difference of a pixel, or of a latent in shares of the largest, that counts as rounding.

    Returns:
        The names of the promises that hold.

    Raises:
        BrokenPromise: One does not.
    """
    check_images("images", images)
    checks = [_is_ready, _encodes_to_rows, _decodes_to_images, _is_exact, _keeps_rows_apart, _has_gradients]
    checks += [
        _writes_into_nothing,
        _repeats,
        _is_the_same_while_constant,
        _has_length_and_range,
        _has_a_density_or_none,
    ]
    return run(checks, generator, images, tolerance)


def _is_ready(generator: Coordinates, images: Tensor, tolerance: float) -> None:
    parts = [*Coordinates.__annotations__, "encode", "decode", "typical_length", "log_prob", "check_ready", "constant"]
    missing = [part for part in parts if not hasattr(generator, part)]
    promise(not missing, f"{type(generator).__name__} lacks {', '.join(missing)}")
    generator.check_ready()


def _encodes_to_rows(generator: Coordinates, images: Tensor, tolerance: float) -> None:
    z = generator.encode(images.clone())
    promise(isinstance(z, Tensor) and z.ndim == 2 and len(z) == len(images), "encode must give (N, D)")
    promise(z.isfinite().all() and z.device == images.device, "encode must give finite latents on the images' device")


def _decodes_to_images(generator: Coordinates, images: Tensor, tolerance: float) -> None:
    decoded = generator.decode(generator.encode(images.clone()))
    promise(isinstance(decoded, Tensor) and decoded.shape == images.shape, f"decode must give {tuple(images.shape)}")
    promise(decoded.isfinite().all(), "decode must give finite images for encoded ones")


def _is_exact(generator: Coordinates, images: Tensor, tolerance: float) -> None:
    if generator.exact:
        off = largest(generator.decode(generator.encode(images.clone())) - images)
        promise(off <= tolerance, f"exact says decode(encode(x)) is x, a pixel is off by {off:.2g}")


def _keeps_rows_apart(generator: Coordinates, images: Tensor, tolerance: float) -> None:
    z = generator.encode(images.clone())
    alone = torch.cat([generator.encode(image[None].clone()) for image in images])
    promise(is_near(alone, z, tolerance), "encode must not depend on the other images of the batch")
    decoded = torch.cat([generator.decode(row[None].clone()) for row in z])
    promise(is_near(decoded, generator.decode(z.clone()), tolerance), "decode must not depend on the other latents")


def _has_gradients(generator: Coordinates, images: Tensor, tolerance: float) -> None:
    with torch.enable_grad():
        z = generator.encode(images.clone()).detach().requires_grad_()
        decoded = generator.decode(z.clone())
        promise(decoded.requires_grad, "decode must be differentiable in its latents")
        [gradient] = torch.autograd.grad(decoded.square().sum(), z, allow_unused=True)
    promise(gradient is not None and gradient.isfinite().all(), "decode must have finite gradients in its latents")
    promise((gradient[:, generator.free] != 0).any(), "decode must depend on the free coordinates")


def _writes_into_nothing(generator: Coordinates, images: Tensor, tolerance: float) -> None:
    given = images.clone()
    z = generator.encode(given).detach()
    promise(torch.equal(given, images), "encode must not write into its images")
    before = z.clone()
    generator.decode(z)
    promise(torch.equal(z, before), "decode must not write into its latents")


def _repeats(generator: Coordinates, images: Tensor, tolerance: float) -> None:
    state = torch.random.get_rng_state()
    first, second = (generator.decode(generator.encode(images.clone())) for _ in range(2))
    promise(torch.equal(first, second), "two decodes of the same latents must be equal: is there a draw of noise?")
    promise(torch.equal(state, torch.random.get_rng_state()), "encode and decode must draw no random numbers")


def _is_the_same_while_constant(generator: Coordinates, images: Tensor, tolerance: float) -> None:
    z = generator.encode(images.clone()).detach()
    before = generator.decode(z.clone())
    with generator.constant():
        inside = generator.decode(z.clone())
        with generator.constant():
            pass
        after_inner = generator.decode(z.clone())
    promise(is_near(inside, before, tolerance), "decode must give the same within constant()")
    promise(is_near(after_inner, before, tolerance), "constant() must be allowed within itself")
    promise(is_near(generator.decode(z.clone()), before, tolerance), "decode must give the same after constant()")


def _has_length_and_range(generator: Coordinates, images: Tensor, tolerance: float) -> None:
    length = torch.as_tensor(generator.typical_length(generator.encode(images.clone())))
    promise(length.ndim == 0 and 0 < float(length) < float("inf"), "typical_length must be one positive number")
    bounds = generator.data_range
    promise(bounds is None or (len(bounds) == 2 and bounds[0] < bounds[1]), "data_range must be None or (low, high)")


def _has_a_density_or_none(generator: Coordinates, images: Tensor, tolerance: float) -> None:
    try:
        density = generator.log_prob(images.clone())
    except TypeError:
        return
    promise(density.shape == (len(images),), f"log_prob must give ({len(images)},), received {tuple(density.shape)}")
