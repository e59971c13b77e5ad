from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import captum_dcf

MODULES = [
    module.name for module in pkgutil.walk_packages(captum_dcf.__path__, "captum_dcf.") if "__main__" not in module.name
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name):
    module = importlib.import_module(name)
    # Examples use the names of their own module, and torch.
    names = {**vars(module), "torch": importlib.import_module("torch")}
    assert doctest.testmod(module, extraglobs=names).failed == 0
