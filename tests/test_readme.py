from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_there_is_code_in_the_readme():
    assert BLOCKS


def test_the_readme_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)


@pytest.mark.parametrize("target", re.findall(r"\]\(((?!http)[^)#]+)\)", README.read_text(encoding="utf-8")))
def test_what_the_readme_links_to_is_there(target):
    assert (README.parent / target).exists()
