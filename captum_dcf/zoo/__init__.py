r"""The models we ship: ``zoo.names()``, ``zoo.load(name)``, and the card of each."""

from .card import Card, names, read_card
from .store import load, save

__all__ = ["Card", "load", "names", "read_card", "save"]
