r"""A torchvision MNIST root of a few made-up digits, in the idx format of the original files."""

from __future__ import annotations

import struct
from pathlib import Path

import torch
from torch import Tensor


def write_mnist(root: Path, train: int, test: int) -> dict[bool, tuple[Tensor, Tensor]]:
    r"""Writes the four files and returns what is in them: by whether for training, images and labels, uint8."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    source = torch.Generator().manual_seed(train)
    written = {}
    for is_train, stem, count in ((True, "train", train), (False, "t10k", test)):
        labels = (torch.arange(count) % 10).to(torch.uint8)
        noise = torch.randint(0, 60, (count, 28, 28), generator=source, dtype=torch.uint8)
        # Digit k is a bright bar in columns 2k + 4 and 2k + 5: easy to learn.
        columns = torch.arange(28)[None, None, :] // 2 - 2 == labels[:, None, None]
        images = torch.where(columns, 200 + noise // 2, noise)
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(idx(labels))
        written[is_train] = images, labels
    return written


def idx(values: Tensor) -> bytes:
    r"""Unsigned bytes as an idx file."""
    # Magic number: two zeros, 8 for unsigned bytes, the number of dimensions.
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return header + bytes(values.flatten().tolist())
