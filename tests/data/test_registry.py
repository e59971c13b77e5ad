r"""Names that stand for code."""

from __future__ import annotations

import sys
import types

import pytest

from captum_dcf import registry


def test_what_stands_at_a_place_is_given():
    assert registry.imported("collections.abc:Mapping.get") is __import__("collections.abc").abc.Mapping.get


def test_a_module_that_needs_a_missing_one_says_which(monkeypatch: pytest.MonkeyPatch, tmp_path):
    (tmp_path / "needy.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found") as caught:
        registry.imported("needy:anything")
    assert caught.value.name == "nowhere_to_be_found"


def test_an_entry_is_found_by_its_name_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "of_ones_own", types.ModuleType("of_ones_own"))
    entries = {"b": 1, "a": 2}
    assert registry.find(entries, "a", "colour") == 2
    for name in ("c", None, ["a"], {}):
        with pytest.raises(ValueError, match=r"no colour .*known are \['a', 'b'\]"):
            registry.find(entries, name, "colour")
    with pytest.raises(ImportError, match="of_ones_own:nothing"):
        registry.imported("of_ones_own:nothing")
