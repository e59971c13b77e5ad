r"""The models we ship: ``zoo.names()``, ``zoo.load(name)``, and the card of each."""

from .store import Card, load, names, read_card

__all__ = ["Card", "load", "names", "read_card"]
