r"""The models that a plan names: of the zoo, of the plan's own folder of weights, or by the path of another folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import nn

from captum_dcf import zoo
from captum_dcf.zoo.card import SHIPPED

__all__ = ["PerClass", "Weights"]


class Weights:
    r"""Models by name, each loaded once.

    A name is one of the zoo or of the plan's folder of weights, which comes first; ``FOLDER/NAME`` is what
    ``captum-dcf train NAME --out FOLDER`` wrote, relative to the plan.

    Args:
        base: The folder of the plan.
        folder: Its folder of weights, if it has one.
        device: Where models are to be.

    Attributes:
        used: SHA-256 of the weights asked for so far, by name.

    Raises:
        FileNotFoundError: There is no such folder.
    """

    def __init__(self, base: Path, folder: Path | None, device: str) -> None:
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"there is no folder of weights {str(folder)!r}")
        self.base, self.folder, self.device = base, folder, device
        self.used: dict[str, str] = {}
        self._loaded = cache(self._load)

    def load(self, name: str) -> nn.Module:
        r"""A model by its name.

        Raises:
            FileNotFoundError: There is none of that name.
            ValueError: That is no name, or the files are damaged.
        """
        self.used[name] = self.card(name).sha256
        return self._loaded(name)

    def card(self, name: str) -> zoo.Card:
        r"""The card of a model."""
        if not isinstance(name, str):
            raise ValueError(f"a model must be given by its name, received {name!r}")
        folder, own = self._place(name)
        return zoo.read_card(own, folder)

    def per_class(self, pattern: str) -> PerClass:
        r"""Models of which each knows one class, by a name with {} where the class stands.

        Raises:
            ValueError: There is no {} in the name.
            FileNotFoundError: No model has such a name.
        """
        if not isinstance(pattern, str) or pattern.count("{}") != 1:
            raise ValueError(f"a model per class must be a name with {{}} for the class, received {pattern!r}")
        folder, own = self._place(pattern)
        before, after = own.split("{}")
        known = {*zoo.names(folder), *(zoo.names() if "/" not in pattern else ())}
        labels = [name.removeprefix(before).removesuffix(after) for name in known if name.startswith(before)]
        names = {int(label): pattern.replace("{}", label) for label in labels if label.isascii() and label.isdigit()}
        if not names:
            raise FileNotFoundError(f"no model {pattern!r} for any class; there are {sorted(known)}")
        for name in names.values():
            self.used[name] = self.card(name).sha256
        return PerClass({label: partial(self.load, names[label]) for label in sorted(names)})

    def _place(self, name: str) -> tuple[Path, str]:
        above, _, own = name.rpartition("/")
        if above:
            return self.base / above, own
        is_own = self.folder is not None and ("{}" in own or (self.folder / f"{own}.json").is_file())
        return (self.folder if is_own and self.folder is not None else SHIPPED), own

    def _load(self, name: str) -> nn.Module:
        folder, own = self._place(name)
        model: nn.Module = zoo.load(own, folder)
        return model.to(self.device)


class PerClass(Mapping[int, Any]):
    r"""Models by class, loaded when they are first asked for.

    Args:
        loaders: By class, what loads its model.
    """

    def __init__(self, loaders: Mapping[int, Callable[[], nn.Module]]) -> None:
        self._loaders = loaders

    def __getitem__(self, label: int) -> nn.Module:
        return self._loaders[label]()

    def __iter__(self) -> Iterator[int]:
        return iter(self._loaders)

    def __len__(self) -> int:
        return len(self._loaders)
