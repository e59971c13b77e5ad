r"""Data: bundled digits, synthetic sets and loaders for the real ones."""

from .mnist import mnist, mnist_sample
from .sources import Source, open_source

__all__ = ["Source", "mnist", "mnist_sample", "open_source"]
