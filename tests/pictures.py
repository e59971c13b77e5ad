r"""Image files that tests write."""

from __future__ import annotations

from pathlib import Path

import torch

from captum_dcf.data.files import write_image


def draw(root: Path, *names: str, seed: int = 0) -> Path:
    r"""Writes grey noise of 4×4 pixels, each image another, to files of these names."""
    source = torch.Generator().manual_seed(seed)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(torch.rand(1, 4, 4, generator=source), root / name)
    return root


def table(path: Path, *rows: str) -> Path:
    r"""Writes the rows of a CSV file."""
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path
