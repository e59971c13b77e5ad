r"""Data: bundled digits, synthetic sets and loaders for the real ones."""

from .mnist import mnist, mnist_sample

__all__ = ["mnist", "mnist_sample"]
