r"""Models and generators by where they are found: in the zoo, in a folder that training wrote, or in a user's code."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import normflows as nf
from torch import nn

from captum_dcf import zoo
from captum_dcf.generators import Generator, NormalizingFlowGenerator
from captum_dcf.models.registry import architecture
from captum_dcf.search import Coordinates
from captum_dcf.zoo import Card

__all__ = ["card_of", "fault", "load_generator", "load_model", "place_of"]

SUFFIXES = ".json", ".safetensors"


def load_model(place: str) -> Callable[..., Any]:
    r"""A classifier or regressor, images (N, C, H, W) to outputs; a module comes in evaluation mode.

    Code is run because it is named here, with the rights of whoever calls: name only code that you trust.

    Args:
        place: ``"package.module:name"`` or ``"folder/file.py:name"``: your own code, a ``torch.nn.Module``, or a
            callable without arguments that returns one or a function of images. Modules are also looked up in the
            current folder. ``"DIR/NAME"``: what ``captum-dcf train`` wrote into DIR; ``"DIR/"`` where there is but one
            such model. ``"NAME"``: a model of the zoo.

    Raises:
        FileNotFoundError: There is no such file, folder or model.
        ImportError: There is no such module, or nothing of that name in it.
        ValueError: Your code raises something, which is said with its file and line, or gives something else than a
            model; a generator is named; a folder holds no model, or several; weights do not fit their card.
    """
    model = _loaded(place, ("classifier", "regressor"))
    if _is_generator(model):
        raise ValueError(f"{place!r} is a generator, and no classifier or regressor; one of the zoo is 'mnist-cnn'")
    if isinstance(model, type) or not callable(model):
        raise ValueError(
            f"{place!r} is no classifier or regressor: it must give a torch.nn.Module or a function of images, "
            f"received {_kind(model)}"
        )
    function: Callable[..., Any] = model
    return function


def load_generator(place: str) -> Any:
    r"""A generator, ready for a search; a module comes in evaluation mode.

    Args:
        place: As for :func:`load_model`; code of your own gives a :class:`~captum_dcf.Generator` (or any object with
            the parts of ``captum_dcf.search.Coordinates``), or a flow of normflows, which is wrapped.

    Raises:
        FileNotFoundError: As :func:`load_model`.
        ImportError: As :func:`load_model`.
        ValueError: As :func:`load_model`, or what is named is no generator.
    """
    generator = _loaded(place, ("generator",))
    if isinstance(generator, (nf.NormalizingFlow, nf.MultiscaleFlow)):
        generator = NormalizingFlowGenerator(generator).eval()
    if not _is_generator(generator):
        raise ValueError(
            f"{place!r} is no generator: it must give a captum_dcf Generator or a flow of normflows, received "
            f"{_kind(generator)}; one of the zoo is 'mnist-glow'"
        )
    return generator


def card_of(place: str, generator: bool = False) -> Card | None:
    r"""The card of a model, or with ``generator`` of a generator; None for code of one's own, which has none.

    Raises:
        FileNotFoundError: There is no such folder or model.
        ValueError: A folder holds none, or several.
    """
    if _own_code(place):
        return None
    return zoo.read_card(*place_of(place, ("generator",) if generator else ("classifier", "regressor")))


def place_of(place: str, roles: tuple[str, ...]) -> tuple[str, Path]:
    r"""Name and folder of a trained model: of the zoo, ``"DIR/NAME"``, or ``"DIR/"`` with but one of these roles.

    Raises:
        FileNotFoundError: There is no such folder or model.
        ValueError: The folder holds no model of these roles, or several.
    """
    path = Path(place)
    if place in zoo.names():
        return place, zoo.card.SHIPPED
    is_path = "/" in place or os.sep in place
    if is_path and path.suffix in SUFFIXES:
        return path.stem, path.parent
    if path.is_dir() and not (is_path and path.with_name(f"{path.name}.json").is_file() and place[-1] not in "/\\"):
        return _only_one(path, roles), path
    if not is_path:
        raise FileNotFoundError(
            f"no model {place!r}: the zoo has {zoo.names()}, a trained one is named DIR/NAME or DIR/, one of your own "
            "my.py:function or package.module:function"
        )
    return path.name, path.parent


def _only_one(folder: Path, roles: tuple[str, ...]) -> str:
    """The name of the only model of these roles in a folder."""
    found = {}
    for name in zoo.names(folder):
        try:
            found[name] = architecture(zoo.read_card(name, folder).architecture).role
        except ValueError:
            continue  # another JSON file, or the card of an architecture that is not registered
    fitting = [name for name, role in found.items() if role in roles]
    wanted = " or ".join(roles)
    if len(fitting) > 1:
        raise ValueError(f"{str(folder)!r} holds several models, {fitting}: name one, as in {folder / fitting[0]}")
    if not fitting:
        others = ", ".join(f"{name} (a {role})" for name, role in found.items()) or "no model at all"
        raise ValueError(f"{str(folder)!r} holds no {wanted}, but {others}")
    return fitting[0]


def _loaded(place: str, roles: tuple[str, ...]) -> Any:
    code = _own_code(place)
    model = _run(place, *code) if code else zoo.load(*place_of(place, roles))
    return model.eval() if isinstance(model, nn.Module) else model


def _own_code(place: str) -> tuple[str, str] | None:
    """Module or file, and name in it, of ``"my.py:net"``; None for another place, also one with a drive letter."""
    if not isinstance(place, str) or not place:
        raise ValueError(f"a model must be named, as in my.py:net, DIR/NAME or mnist-cnn, received {place!r}")
    module, _, name = place.rpartition(":")
    return (module, name) if module and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name) else None


def _run(place: str, module: str, name: str) -> Any:
    """What stands under a name in a user's code; called, where it is no module of torch but a callable."""
    is_file = module.endswith(".py") or "/" in module or os.sep in module
    file = Path(module).resolve()
    if is_file and not file.is_file():
        raise FileNotFoundError(f"no file {module!r}, of which {place!r} names a function")
    folder = file.parent if is_file else Path.cwd()
    with _first_on_path(folder):
        try:
            loaded = _from_file(file) if is_file else import_module(module)
        except (Exception, SystemExit) as error:
            if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
                raise ImportError(f"no module {module!r} in {str(folder)!r} or among what is installed") from error
            raise ValueError(f"{place!r} failed in {fault(error)}") from error
        value = _named(loaded, module, name)
        if isinstance(value, nn.Module) or _is_generator(value) or not callable(value):
            return value
        _check_no_arguments(place, value)
        try:
            return value()
        except (Exception, SystemExit) as error:
            raise ValueError(f"{place!r} failed in {fault(error)}") from error


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    before = sys.path[:]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


def _from_file(file: Path) -> ModuleType:
    # A name of its own, so that a my.py called like a package stands in nobody's way. Dataclasses and pickle look for
    # the module of a class under its name.
    name = f"captum_dcf_loaded_{re.sub(r'[^0-9A-Za-z_]', '_', file.stem)}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _named(module: ModuleType, place: str, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            own = sorted(key for key, one in vars(module).items() if callable(one) and not key.startswith("_"))
            raise ImportError(f"{place!r} has no {name!r}; it has {', '.join(own) or 'nothing that can be called'}")
        value = getattr(value, part)
    return value


def _check_no_arguments(place: str, function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # of some functions written in C none is known
        return
    try:
        signature.bind()
    except TypeError as error:
        raise ValueError(
            f"{place!r} takes arguments {signature}: name a function without, which returns the model"
        ) from error


def fault(error: BaseException) -> str:
    r"""What a user's code raised, in one line: the file and line of theirs, and the exception."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: SyntaxError: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    frame = ([one for one in frames if _is_own(Path(one.filename))] or frames)[-1]
    return f"{frame.filename}, line {frame.lineno}: {type(error).__name__}: {' '.join(str(error).split())}"


def _is_own(file: Path) -> bool:
    """Whether a file is the user's: neither Python's, nor an installed package's, nor of this one."""
    if not file.is_file() or {"site-packages", "dist-packages"} & set(file.parts):
        return False
    return not any(file.is_relative_to(folder) for folder in (sysconfig.get_path("stdlib"), Path(__file__).parent))


def _is_generator(value: Any) -> bool:
    return isinstance(value, (Generator, Coordinates)) and not isinstance(value, type)


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
