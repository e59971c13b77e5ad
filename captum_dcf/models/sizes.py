r"""Sizes of networks that suit images of one's own: one plain rule for each kind of model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from captum_dcf import registry
from captum_dcf.models.halving import halvings

__all__ = ["KINDS", "sizes_for"]

# Networks for fewer images than these are half as wide.
FEW_IMAGES = 2000


def sizes_for(
    kind: str, image_shape: Sequence[int], images: int, classes: int | None = None
) -> tuple[str, dict[str, Any]]:
    r"""The architecture of a kind of model, and its arguments.

    All networks for less than 2,000 images are half as wide as those for more. ``glow``, ``vae``, ``gan`` and
    ``autoencoder`` halve an image as often as it can be, until the shorter side would have less than 4 pixels.

    Args:
        kind: ``"glow"``, ``"vae"``, ``"gan"``, ``"autoencoder"``, ``"classifier"`` or ``"regressor"``.
        image_shape: (C, H, W), height and width of 8 pixels or more.
        images: Number of training images.
        classes: Number of classes, for a classifier.

    Returns:
        The name of an architecture, one of ``captum_dcf.models.registry.ARCHITECTURES``, and arguments that can be
        written as JSON.

    Raises:
        ValueError: There is no such kind; the image is too small, or cannot be halved until its shorter side has 14
            pixels or less (the message names sizes that can); there are no images, or a classifier has less than two
            classes.

    Examples:
        >>> sizes_for("glow", (3, 64, 64), images=6000)[1]["hidden_channels"]
        [48, 64, 96, 128]
        >>> sizes_for("classifier", (1, 28, 28), images=60_000, classes=10)[1]["blocks"]
        [[16, 32], [64, 64]]
    """
    rule = registry.find(KINDS, kind, "kind of model")
    shape = list(image_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"image_shape must be (channels, height, width), received {image_shape!r}")
    if images < 1:
        raise ValueError(f"a model needs training images, received {images}")
    share = 2 if images < FEW_IMAGES else 1
    if kind != "classifier":
        return rule(shape, share)
    if classes is None or classes < 2:
        raise ValueError(f"a classifier needs two classes or more, received {classes}")
    architecture, arguments = rule(shape, share)
    return architecture, {**arguments, "num_classes": classes}


def _glow(shape: list[int], share: int) -> tuple[str, dict[str, Any]]:
    """24 steps, but at least 8 a level; the coarser a level is, the wider are its networks, as it costs less there."""
    # Each further level doubles the channels: a sixth would have more parameters than all others together.
    levels = min(5, halvings(*shape[1:]))
    sides = [min(shape[1:]) // 2 ** (level + 1) for level in range(levels)]
    widths = [48 if side >= 32 else 64 if side >= 16 else 96 if side >= 8 else 128 for side in sides]
    return "glow", {
        "image_shape": shape,
        "steps": [max(8, 24 // levels)] * levels,
        "hidden_channels": [width // share for width in widths],
    }


def _latent_model(architecture: str, shape: list[int], share: int) -> tuple[str, dict[str, Any]]:
    """Channels double from 32 to 128; as many latents as the shorter side has pixels, but 32 to 128."""
    channels = [min(128, 32 * 2**level) // share for level in range(halvings(*shape[1:]))]
    latent = min(128, max(32, min(shape[1:])))
    return architecture, {"image_shape": shape, "latent": latent, "channels": channels}


def _vae(shape: list[int], share: int) -> tuple[str, dict[str, Any]]:
    """The same; with a divergence of weight 5, latents are near the prior after some minutes, with one of 1 not."""
    architecture, arguments = _latent_model("conv_vae", shape, share)
    return architecture, {**arguments, "beta": 5.0}


def _classifier(architecture: str, shape: list[int], share: int) -> tuple[str, dict[str, Any]]:
    """The paper's blocks for digits, 16-32 and 64-64, and further ones until less than 10 pixels a side are left."""
    side = min(shape[1:])
    if side < 8:
        raise ValueError(f"images must have 8 pixels or more a side, received {shape[1]}×{shape[2]}")
    blocks: list[list[int]] = []
    # A block takes two pixels on each side, and halves what is left.
    while not blocks or side >= 10:
        side = (side - 4) // 2
        blocks.append([16 // share, 32 // share] if not blocks else [64 // share, 64 // share])
    return architecture, {
        "in_channels": shape[0],
        "image_size": shape[1:],
        "blocks": blocks,
        "hidden": [256 // share, 128 // share],
    }


KINDS: dict[str, Callable[[list[int], int], tuple[str, dict[str, Any]]]] = {
    "glow": _glow,
    "vae": _vae,
    "gan": partial(_latent_model, "conv_gan"),
    "autoencoder": partial(_latent_model, "conv_autoencoder"),
    "classifier": partial(_classifier, "conv_classifier"),
    "regressor": partial(_classifier, "conv_regressor"),
}
