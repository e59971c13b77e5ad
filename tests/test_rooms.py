r"""Who may import whom, and what ``import captum_dcf`` costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import captum_dcf

PACKAGE = Path(captum_dcf.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"torchvision", "normflows", "sklearn", "lightning", "pytorch_lightning", "diffusers", "pandas", "torchmetrics"}


class Import(NamedTuple):
    module: Path
    name: str
    is_lazy: bool

    @property
    def top(self) -> str:
        return self.name.split(".")[0]

    def __str__(self) -> str:
        return f"{self.module.relative_to(PACKAGE)} imports {self.name}"


def imports_of(module: Path) -> Iterator[Import]:
    package = ["captum_dcf", *module.relative_to(PACKAGE).parent.parts]

    def walk(node: ast.AST, is_lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name, is_lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (Import(module, f"{origin}.{alias.name}", is_lazy) for alias in node.names)
        # For the type checker only is as good as not at all.
        is_lazy |= isinstance(node, (ast.FunctionDef, ast.Lambda)) or _is_type_checking(node)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, is_lazy)

    return walk(ast.parse(module.read_text(encoding="utf-8")), False)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def of_room(room: str) -> list[Import]:
    folder, module = PACKAGE / room, PACKAGE / f"{room}.py"
    found = [module] if module.is_file() else sorted(folder.rglob("*.py"))
    return [one for path in found for one in imports_of(path)]


def leads_to(one: Import, *rooms: str) -> bool:
    return any(one.name == place or one.name.startswith(f"{place}.") for place in rooms)


def is_standard(one: Import) -> bool:
    return one.top in sys.stdlib_module_names


def test_the_parser_sees_what_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = tmp_path / "room" / "module.py"
    module.parent.mkdir()
    module.write_text(
        "import os.path as p, torch\nfrom . import goal\nfrom ..attr import x\nfrom captum import _utils\n"
        "def f():\n    import pandas\nclass A:\n    import numpy\nif TYPE_CHECKING:\n    import click\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    assert [(one.name, one.is_lazy) for one in imports_of(module)] == [
        ("os.path", False),
        ("torch", False),
        ("captum_dcf.room.goal", False),
        ("captum_dcf.attr.x", False),
        ("captum._utils", False),
        ("pandas", True),
        ("numpy", False),
        ("click", True),
    ]


def test_search_imports_torch_only():
    wrong = [
        one
        for one in of_room("search")
        if not (is_standard(one) or one.top == "torch" or leads_to(one, "captum_dcf.search"))
        # Saving and tables need more, when they are asked for.
        and not (one.module.name == "result.py" and one.is_lazy and one.top in ("safetensors", "pandas"))
    ]
    assert of_room("search")
    assert not wrong, list(map(str, wrong))


def test_context_imports_torch_only():
    wrong = [one for one in of_room("context") if not (is_standard(one) or one.top == "torch")]
    assert of_room("context")
    assert not wrong, list(map(str, wrong))


def test_generators_import_no_other_room_but_context_and_the_support_of_a_search():
    rooms = "captum_dcf.generators", "captum_dcf.context", "captum_dcf.search.support"
    wrong = [
        one
        for one in of_room("generators")
        # The adapter of a library of flows imports that library, and nobody else does.
        if not (is_standard(one) or one.top in ("torch", "normflows") or leads_to(one, *rooms))
    ]
    assert of_room("generators")
    assert not wrong, list(map(str, wrong))


@pytest.mark.parametrize("room", ["metrics", "geometry"])
def test_measures_do_not_import_attr(room: str):
    wrong = [one for one in of_room(room) if leads_to(one, "captum_dcf.attr")]
    assert not wrong, list(map(str, wrong))


def test_attr_imports_search_generators_context_and_captum():
    rooms = tuple(f"captum_dcf.{room}" for room in ("attr", "search", "generators", "context", "version"))
    others = "torch", "captum"
    wrong = [
        one
        for one in of_room("attr")
        if not (is_standard(one) or one.top in others or leads_to(one, *rooms))
        # A progress bar when it is asked for, and names for type checkers alone.
        and not (one.is_lazy and one.top in ("tqdm", "typing_extensions"))
    ]
    assert of_room("attr")
    assert not wrong, list(map(str, wrong))


@pytest.mark.parametrize("room", ["models", "zoo", "data"])
def test_models_and_data_know_nothing_of_searches(room: str):
    wrong = [one for one in of_room(room) if leads_to(one, "captum_dcf.attr", "captum_dcf.search")]
    assert of_room(room)
    assert not wrong, list(map(str, wrong))


def test_data_import_no_other_room():
    rooms = "captum_dcf.data", "captum_dcf.registry"
    wrong = [one for one in of_room("data") if one.top == "captum_dcf" and not leads_to(one, *rooms)]
    assert not wrong, list(map(str, wrong))


def test_models_by_place_are_looked_up_below():
    rooms = tuple(f"captum_dcf.{room}" for room in ("zoo", "models", "generators", "search"))
    wrong = [one for one in of_room("loading") if one.top == "captum_dcf" and not leads_to(one, *rooms)]
    assert of_room("loading")
    assert not wrong, list(map(str, wrong))


def test_nothing_imports_the_command_line():
    # But what `python -m captum_dcf` runs.
    wrong = [
        one
        for module in MODULES
        if module.name != "__main__.py"
        for one in imports_of(module)
        if leads_to(one, "captum_dcf.cli")
    ]
    assert not wrong, list(map(str, wrong))


def test_one_module_imports_private_names_of_captum():
    private = {
        one.module.relative_to(PACKAGE).as_posix()
        for module in MODULES
        for one in imports_of(module)
        if one.top == "captum" and any(part.startswith("_") for part in one.name.split(".")[1:])
    }
    assert private == {"attr/_captum.py"}


def test_heavy_packages_are_not_loaded_before_they_are_needed():
    # By their parents' __init__: what is imported whenever the package is.
    wrong = [one for room in ("search", "attr") for one in of_room(room) if one.top in HEAVY and not one.is_lazy]
    assert not wrong, list(map(str, wrong))


def _loaded(code: str) -> set[str]:
    script = f"import sys\nbefore = set()\n{code}\nprint(*{{name.split('.')[0] for name in set(sys.modules) - before}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_it_loads_what_captum_attr_loads():
    # One process, since what is loaded by chance on the way differs between two.
    new = _loaded("import captum.attr, captum.robust\nbefore = set(sys.modules)\nfrom captum_dcf import *")
    assert new - sys.stdlib_module_names - {"__main__"} == {"captum_dcf"}


def test_it_works_without_torchvision_and_without_the_extras():
    code = "\n".join(
        [
            *(f"sys.modules[{name!r}] = None" for name in sorted(HEAVY)),
            "import torch, captum_dcf",
            "from captum_dcf.data import mnist_sample",
            "x = mnist_sample()[0][:2]",
            "generator = captum_dcf.Pixels((1, 28, 28))",
            "method = captum_dcf.DiffeomorphicCounterfactual(lambda x: 50 * x.mean((2, 3)) - 9, generator,",
            "                                                output='binary_logit')",
            "assert method.counterfactual(x, target=1, confidence=0.9).reached.all()",
            "from captum_dcf import zoo",
            "zoo.names()",
        ]
    )
    _loaded(code)
