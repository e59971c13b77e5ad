r"""Dictionaries of named entries, to which a user adds their own."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from pkgutil import resolve_name
from typing import Any, TypeVar

__all__ = ["add", "check_place", "find", "imported"]

Entry = TypeVar("Entry")


def find(registry: Mapping[str, Entry], name: str, kind: str) -> Entry:
    r"""The entry of a name; ``kind`` says in an error what it should have been the name of.

    Raises:
        ValueError: There is no entry of that name.
    """
    if not isinstance(name, str) or name not in registry:
        raise ValueError(f"no {kind} {name!r}; known are {sorted(registry)}")
    return registry[name]


def add(registry: MutableMapping[str, Entry], name: str, entry: Entry, kind: str) -> None:
    r"""Adds an entry; adding an equal one again changes nothing.

    Raises:
        TypeError: ``name`` is no string.
        ValueError: ``name`` is empty, or the name of another entry.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a {kind} must be a string, received {name!r}")
    if not name or registry.get(name, entry) != entry:
        raise ValueError(f"{name!r} cannot be the name of another {kind}; taken are {sorted(registry)}")
    registry[name] = entry


def check_place(place: str, what: str) -> None:
    r"""Refuses what is not of the form ``"module:name"``.

    Raises:
        ValueError: ``place`` is of another form.
    """
    module, _, name = place.partition(":") if isinstance(place, str) else ("", "", "")
    if not module or not name:
        raise ValueError(f'{what} must say where it is found as "module:name", received {place!r}')


def imported(place: str) -> Any:
    r"""What stands at ``"module:name"``; its module is imported.

    Raises:
        ImportError: There is no such module, or nothing of that name in it.
    """
    try:
        return resolve_name(place)
    except (AttributeError, ModuleNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError) and not place.startswith(str(error.name)):
            raise  # the module is there, and needs one that is not
        raise ImportError(f"nothing is found at {place!r}: {error}") from error
