r"""The models that a plan names: of the zoo, of the plan's own folder of weights, or by the path of another folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from captum_dcf import zoo
from captum_dcf.search.model import Model, OutputKind
from captum_dcf.zoo.card import SHIPPED

__all__ = ["AsLogits", "PerClass", "Weights"]


class Weights:
    r"""Models by name, each loaded once.

    A name is one of the zoo or of the plan's folder of weights, which comes first; ``FOLDER/NAME`` is what
    ``captum-dcf train`` wrote into FOLDER, and ``my.py:net`` or ``package.module:net`` code of the user's, see
    :func:`captum_dcf.loading.load_model`. Folders and files are relative to the plan.

    Args:
        base: The folder of the plan.
        folder: Its folder of weights, if it has one.
        device: Where models are to be.

    Attributes:
        used: SHA-256 of the weights asked for so far, by name; of a user's own model that of its code and parameters.

    Raises:
        FileNotFoundError: There is no such folder.
    """

    def __init__(self, base: Path, folder: Path | None, device: str) -> None:
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"there is no folder of weights {str(folder)!r}")
        self.base, self.folder, self.device = base, folder, device
        self.used: dict[str, str] = {}
        self._loaded = cache(self._load)

    def load(self, name: str, is_generator: bool = False) -> Any:
        r"""A model by its name.

        Args:
            name: Its name.
            is_generator: Whether code of the user's is to give a generator, and not another model.

        Raises:
            FileNotFoundError: There is none of that name.
            ImportError: There is no such module, or nothing of that name in it.
            ValueError: That is no name, the files are damaged, or the user's code fails.
        """
        if not isinstance(name, str):
            raise ValueError(f"a model must be given by its name, received {name!r}")
        # What is not code is what it is, and is loaded once.
        model = self._loaded(name, is_generator and ":" in name)
        card = self.card(name)
        self.used[name] = self._sha256(name, model) if card is None else card.sha256
        return model

    def card(self, name: str) -> zoo.Card | None:
        r"""The card of a model; None for code of the user's."""
        if ":" in name:
            return None
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
            card = self.card(name)
            self.used[name] = card.sha256 if card else ""
        return PerClass({label: partial(self.load, names[label]) for label in sorted(names)})

    def _place(self, name: str) -> tuple[Path, str]:
        above, _, own = name.rpartition("/")
        if above:
            return self.base / above, own
        is_own = self.folder is not None and ("{}" in own or (self.folder / f"{own}.json").is_file())
        return (self.folder if is_own and self.folder is not None else SHIPPED), own

    def _load(self, name: str, is_generator: bool) -> Any:
        model: Any
        if ":" in name:
            from captum_dcf.loading import load_generator, load_model

            model = (load_generator if is_generator else load_model)(self._code(name))
        else:
            folder, own = self._place(name)
            model = zoo.load(own, folder)
        return model.to(self.device) if isinstance(model, nn.Module) else model

    def _code(self, name: str) -> str:
        file, _, function = name.rpartition(":")
        return f"{self.base / file}:{function}" if file.endswith(".py") else name

    def _sha256(self, name: str, model: Any) -> str:
        """Of a user's file of code, and of the parameters and buffers that it gives a model."""
        file = name.rpartition(":")[0]
        code = (self.base / file).read_bytes() if file.endswith(".py") else b""
        state = model.state_dict() if isinstance(model, nn.Module) else {}
        tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
        return hashlib.sha256(code + tensors_to_bytes(tensors)).hexdigest()


class AsLogits(nn.Module):
    r"""A classifier of probabilities or of one logit as one of logits (N, C), which methods and metrics all take.

    Args:
        model: The classifier.
        kind: What it gives, ``"probabilities"`` (N, C), or ``"binary_logit"`` (N,) or (N, 1), positive for class 1.
    """

    def __init__(self, model: Callable[..., Any], kind: OutputKind) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, images: Tensor) -> Tensor:
        return Model(self.model, len(images), kind=self.kind)(images)


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
