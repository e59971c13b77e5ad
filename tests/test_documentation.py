r"""The documents: their code runs, and what they link to is there."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from captum_dcf.data.sources import SOURCES
from captum_dcf.metrics.registry import METRICS
from captum_dcf.models.registry import ARCHITECTURES
from captum_dcf.training.recipes import AUGMENTATIONS, OBJECTIVES, RECIPES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
DOCUMENTS = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture
def _registries_stay() -> Iterator[None]:
    registries: list[dict[str, Any]] = [SOURCES, METRICS, ARCHITECTURES, RECIPES, OBJECTIVES, AUGMENTATIONS]
    before = [dict(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before):
        registry.clear()
        registry.update(entries)


@pytest.mark.usefixtures("_registries_stay")
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_its_code_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("documented")
    # So that what the page defines can be named as a module's, as that of a user would be.
    monkeypatch.setitem(sys.modules, "documented", module)
    blocks = re.findall(r"```python\n(.*?)```", text(page), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, str(page), "exec"), module.__dict__)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_what_it_links_to_is_there(document: Path):
    missing = [
        target
        for target in re.findall(r"\]\(((?!http)[^)#]+)\)", text(document))
        if not (document.parent / target).exists()
    ]
    assert not missing
