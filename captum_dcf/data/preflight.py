r"""What there is to learn from: every image of a folder or a CSV file is opened before hours are spent on them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from captum_dcf.data.files import count_frames, open_image
from captum_dcf.data.listing import Kind, Listing, check_split, list_images
from captum_dcf.data.table import enumerate_some

__all__ = ["Summary", "check_images"]

FEW_IMAGES = 100
FEW_OF_A_CLASS = 10
DARK = 64


@dataclass(frozen=True)
class Summary:
    r"""What was found; as text, a line of numbers and one for each warning.

    Attributes:
        count: Number of images.
        held_out: How many of them are held out, the split ``"test"``.
        groups: Number of groups; without any, that of the images.
        classes: Names of the classes, None where the labels are values.
        counts: How many images there are of each class, training and test; empty where the labels are values.
        values: The smallest and the largest label, where they are values.
        sizes: (height, width) of the images with the fewest and with the most pixels.
        channels: 3 where any image has colours, else 1, also where grey images are stored as colour.
        warnings: What may go wrong, a sentence each.
    """

    count: int
    held_out: int
    groups: int
    classes: tuple[str, ...] | None
    counts: tuple[int, ...]
    values: tuple[float, float] | None
    sizes: tuple[tuple[int, int], tuple[int, int]]
    channels: int
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        (height, width), largest = self.sizes
        size = f"{height}×{width}" + (f" to {largest[0]}×{largest[1]}" if largest != (height, width) else "")
        labels = ", ".join(f"{name}: {count:,}" for name, count in zip(self.classes or (), self.counts) if count)
        if self.values is not None:
            labels = f"values from {self.values[0]:g} to {self.values[1]:g}"
        groups = f", {self.groups:,} groups" if self.groups < self.count else ""
        colour = "grey" if self.channels == 1 else "colour"
        line = f"{self.count:,} images ({labels}), {size}, {colour}{groups}; {self.held_out:,} held out"
        return "\n".join([line, *(f"warning: {warning}" for warning in self.warnings)])


def check_images(
    root: str | Path,
    column: str | None = None,
    group: str | None = None,
    labels: Kind = None,
    holdout: float = 0.1,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    r"""Opens and decodes every image that :func:`captum_dcf.data.images.open_images` would give, once.

    Args:
        root, column, group, labels, holdout: As there.
        progress: Is called after each image with the number of those that were read, and of all.

    Raises:
        FileNotFoundError: There is no such folder or file, or no image in it.
        ValueError: As there; or some images cannot be read, are transparent or have values of unknown range. The first
            20 of them are named, each with what is wrong.
    """
    listing = list_images(root, column, group, labels, holdout)
    check_split(listing, root, labels)
    broken, seen = [], []
    for number, file in enumerate(listing.files):
        try:
            seen.append(_look(file))
        except (OSError, ValueError) as error:
            broken.append(str(error))
        if progress is not None:
            progress(number + 1, len(listing.files))
    if broken:
        raise ValueError(f"{len(broken):,} of {len(listing.files):,} images cannot be used: {enumerate_some(broken)}")
    sizes = sorted((one.size for one in seen), key=lambda size: (size[0] * size[1], size))
    is_classes = listing.classes is not None
    counts = Counter(listing.targets)
    return Summary(
        count=len(seen),
        held_out=sum(listing.held_out),
        groups=len(set(listing.groups)),
        classes=listing.classes,
        counts=tuple(counts[label] for label in range(len(listing.classes or ()))),
        values=None if is_classes else (min(listing.targets), max(listing.targets)),
        sizes=(sizes[0], sizes[-1]),
        channels=3 if any(one.has_colour for one in seen) else 1,
        warnings=(*_of_labels(listing), *_of_content(listing, seen)),
    )


class _Seen(NamedTuple):
    """What is kept of an image that was decoded."""

    size: tuple[int, int]
    has_colour: bool
    frames: int
    brightest: int
    content: bytes


def _look(path: Path) -> _Seen:
    image = open_image(path)
    pixels = np.asarray(image)
    has_colour = image.mode == "RGB" and bool((pixels != pixels[..., :1]).any())
    grey = pixels if has_colour or image.mode == "L" else np.ascontiguousarray(pixels[..., 0])
    content = hashlib.sha256(f"{grey.shape}".encode() + grey.tobytes()).digest()
    return _Seen(pixels.shape[:2], has_colour, count_frames(path), int(pixels.max()), content)


def _of_labels(listing: Listing) -> Iterator[str]:
    count = len(listing.files)
    if count < FEW_IMAGES:
        yield f"{count} images are few: {FEW_IMAGES} are the least to try with, thousands are better"
    if listing.left_out:
        yield f"not used: {enumerate_some(listing.left_out, 5)}"
    if listing.classes is None or not listing.labelled:
        return
    counts, tested = Counter(listing.targets), Counter(compress(listing.targets, listing.held_out))
    if len(counts) == 1:
        yield f"all images are of one class, {listing.classes[int(listing.targets[0])]!r}: a classifier needs two"
    names = list(enumerate(listing.classes))
    for missing, found in (
        ("images", [name for label, name in names if counts[label] == 0]),
        (f"{FEW_OF_A_CLASS} images", [name for label, name in names if 0 < counts[label] < FEW_OF_A_CLASS]),
        ("images to test with", [name for label, name in names if tested[label] == 0 < counts[label]]),
        ("images to train with", [name for label, name in names if tested[label] == counts[label] > 0]),
    ):
        if found:
            yield f"classes without {missing}: {enumerate_some(found, 5)}"


def _of_content(listing: Listing, seen: list[_Seen]) -> Iterator[str]:
    heights, widths = zip(*(one.size for one in seen))
    longest = [max(one.size) for one in seen]
    if max(longest) > 2 * min(longest):
        yield f"sizes differ: the longer side is {min(longest)} to {max(longest)} pixels, small images may be blurred"
    shapes = [width / height for height, width in zip(heights, widths)]
    if max(shapes) > 1.5 * min(shapes):
        yield f"shapes differ: width / height is {min(shapes):.2g} to {max(shapes):.2g}, images are stretched to one"
    coloured = [str(file) for file, one in zip(listing.files, seen) if one.has_colour]
    if 0 < len(coloured) < len(seen):
        yield (
            f"{len(coloured):,} of {len(seen):,} images have colours, first {coloured[0]!r}: all count as colour, "
            "unless 1 channel is asked for"
        )
    several = [str(file) for file, one in zip(listing.files, seen) if one.frames > 1]
    if several:
        yield f"the first of several frames counts in {len(several):,} files: {enumerate_some(several, 5)}"
    brightest = max(one.brightest for one in seen)
    if brightest < DARK:
        yield f"no pixel is brighter than {brightest} of 255: scale them, if they hold fewer bits than their files"
    yield from _of_duplicates(listing, seen)


def _of_duplicates(listing: Listing, seen: list[_Seen]) -> Iterator[str]:
    same = defaultdict(list)
    for place, one in enumerate(seen):
        same[one.content].append(place)
    for what, parts in (
        ("in training and in test", listing.held_out),
        ("with different labels", listing.targets),
    ):
        pairs = [places for places in same.values() if len({parts[place] for place in places}) > 1]
        if pairs:
            names = " and ".join(repr(str(listing.files[place])) for place in pairs[0][:2])
            yield f"the same image is there {what}: {names}" + (f", {len(pairs):,} in all" if len(pairs) > 1 else "")
