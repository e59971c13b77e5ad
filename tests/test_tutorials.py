r"""The notebooks: their code runs, small, and what they show is kept and tells nothing of a machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))


def cells(notebook: Path) -> list[dict[str, Any]]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def test_there_are_tutorials():
    assert NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_code_runs(notebook: Path, tmp_path: Path):
    code = "\n\n".join("".join(cell["source"]) for cell in cells(notebook) if cell["cell_type"] == "code")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "CAPTUM_DCF_SMOKE": "1", "MPLBACKEND": "Agg", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_is_explained_and_was_run(notebook: Path):
    assert notebook.stat().st_size < 300_000
    kinds = [cell["cell_type"] for cell in cells(notebook)]
    assert "code code" not in " ".join(kinds)
    counts = [cell["execution_count"] for cell in cells(notebook) if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    shown = json.dumps([cell.get("outputs", []) for cell in cells(notebook)])
    assert "image/png" in shown
    assert not re.search(r"/(home|root|tmp|Users)/|site-packages|Traceback", shown)
    assert str(ROOT) not in shown
