r"""Cards: what the weights in a file are and how they came to be, as JSON beside them."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["SHIPPED", "Card", "card_path", "names", "read_card", "weights_path"]

SHIPPED = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Card:
    r"""What a weight file holds and how it came to be; everything in it can be written as JSON.

    Attributes:
        name: Name of the model and of its two files: letters, digits and ``_ - + .``, not beginning with a sign.
        architecture: Name of the architecture that the weights belong to, one of
            ``captum_dcf.models.registry.ARCHITECTURES``.
        arguments: Keyword arguments of that architecture.
        data: What it was trained on, with licence and attribution.
        training: Command, seed, epochs, learning rate and whatever else is needed to train it again.
        figures: Measured metrics by name.
        measured: How they were measured, and what a longer training would change.
        sha256: Of the safetensors file, in hexadecimal digits.
        support: Of a generator, how plausible its training images are to it, as
            :class:`~captum_dcf.generators.Support` takes it; empty where nobody has measured it.
        classes: Of a classifier, the names of its classes, those of label 0, 1, ...; empty where they have none.

    Raises:
        TypeError: A field is of another type.
        ValueError: ``name`` is no name, such as a path.
    """

    name: str
    architecture: str
    arguments: dict[str, Any]
    data: str
    training: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    measured: str = ""
    sha256: str = ""
    support: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check_name(self.name)
        for part in ("architecture", "data", "measured", "sha256"):
            _check_type(part, getattr(self, part), str)
        for part in ("arguments", "training", "figures", "support"):
            _check_type(part, getattr(self, part), dict)
        _check_type("classes", self.classes, list)
        for name in self.classes:
            _check_type("classes", name, str)
        for metric, value in self.figures.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"figures must be numbers, received {value!r} for {metric!r}")

    def as_json(self) -> str:
        r"""The text of the card's file.

        Raises:
            TypeError: It holds something that JSON does not have.
        """
        try:
            return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(f"the card of {self.name!r} cannot be written as JSON: {error}") from error


def names(folder: str | Path = SHIPPED) -> list[str]:
    r"""Names of the models in a folder, those that are shipped by default, sorted."""
    return sorted(path.stem for path in Path(folder).glob("*.json"))


def read_card(name: str, folder: str | Path = SHIPPED) -> Card:
    r"""The card of a model.

    Raises:
        FileNotFoundError: There is no card of that name in ``folder``.
        ValueError: ``name`` is no name, or the file is no card or that of another model.
    """
    path = card_path(name, folder)
    if not path.is_file():
        raise FileNotFoundError(f"no model {name!r} in {str(folder)!r}; it has {names(folder)}")
    try:
        card = Card(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a model card: {error}") from error
    if card.name != name:
        raise ValueError(f"{path} is the card of {card.name!r}, not of {name!r}")
    return card


def card_path(name: str, folder: str | Path) -> Path:
    r"""Where the card of a model lies.

    Raises:
        TypeError: ``name`` is no string.
        ValueError: ``name`` is no name, such as a path.
    """
    _check_name(name)
    return Path(folder) / f"{name}.json"


def weights_path(name: str, folder: str | Path) -> Path:
    r"""Where the weights of a model lie; raises as :func:`card_path` does."""
    return card_path(name, folder).with_name(f"{name}.safetensors")


def _check_name(name: object) -> None:
    _check_type("name", name, str)
    if not re.fullmatch(r"\w[\w.+-]*", str(name)):
        raise ValueError(f"a model's name must be letters, digits and _ - + . and no path, received {name!r}")


def _check_type(part: str, value: object, expected: type) -> None:
    if not isinstance(value, expected):
        raise TypeError(f"{part} must be {expected.__name__}, received {value!r}")
