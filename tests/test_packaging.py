r"""pyproject.toml agrees with itself, with the oldest versions that are tested, and with the workflows."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
WORKFLOWS = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml")}
PYTHONS = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", name)]


def test_the_oldest_versions_tested_are_the_lower_bounds():
    # The tools of dev are held to one release, and no part of what is promised.
    promised = [*PROJECT["dependencies"], *(line for name in EXTRAS if name != "dev" for line in EXTRAS[name])]
    bounds = {(canonicalize_name(one.name), str(one.specifier)) for one in map(Requirement, promised) if not one.extras}
    tested = [
        line for line in (ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8").splitlines() if "#" not in line
    ]
    assert sorted(tested) == sorted(
        f"{name}{bound.replace('>=', '==')}{'.0' * (bound.count('.') < 2)}" for name, bound in bounds
    )


@pytest.mark.parametrize("extra", EXTRAS)
def test_extras_name_extras_that_exist(extra: str):
    named = {part for line in EXTRAS[extra] if line.startswith("captum_dcf[") for part in Requirement(line).extras}
    assert named <= set(EXTRAS) - {extra}


def test_all_is_every_extra_that_users_want():
    (everything,) = EXTRAS["all"]
    assert Requirement(everything).extras == set(EXTRAS) - {"all", "dev", "test"}


def test_the_oldest_python_is_the_first_of_the_classifiers():
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"


def test_every_python_promised_is_tested():
    (matrix,) = re.findall(r"python: (\[.*\])", WORKFLOWS["tests"])
    assert re.findall(r"\"(.*?)\"", matrix) == PYTHONS


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_to_commits(name: str):
    used = re.findall(r"uses: (.*)", WORKFLOWS[name])
    assert used
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one) for one in used)
