r"""The paper's comparison as a command."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from captum_dcf.benchmark.reproduce import reproduce_mnist


def test_a_class_is_not_its_own_counterfactual(tmp_path: Path):
    with pytest.raises(ValueError, match="two classes, received 4 twice"):
        reproduce_mnist(tmp_path, source=4, target=4)


def test_the_tables_of_a_few_digits(tmp_path: Path):
    text = reproduce_mnist(tmp_path, limit=2)
    assert "4 → 9, 2 test images" in text
    assert "41.86 ± 2.00" in text
    assert (tmp_path / "mnist-4-to-9.md").read_text(encoding="utf-8") == text + "\n"
    with (tmp_path / "mnist-4-to-9.csv").open(encoding="utf-8") as file:
        rows = {(row["metric"], row["method"]): row for row in csv.DictReader(file)}
    assert float(rows["found", "Z, default"]["mean"]) == 1
    in_pixels, in_latents = (float(rows["L2 in Z to source", name]["mean"]) for name in ("X", "Z, default"))
    assert in_pixels > 3 * in_latents
    # The run goes on where it was stopped.
    shard = tmp_path / "mnist-4-to-9" / "shards" / "00000000.jsonl"
    before = shard.stat().st_mtime_ns
    assert reproduce_mnist(tmp_path, limit=2) == text
    assert shard.stat().st_mtime_ns == before
