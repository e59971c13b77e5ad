r"""Data: bundled digits, synthetic sets and loaders for the real ones."""

from .celeba import CelebA
from .celeba_hq import CelebAHQ
from .chexpert import CheXpert
from .mnist import mnist, mnist_sample
from .nih_chest import NIHChest
from .sources import Source, open_source

__all__ = ["CelebA", "CelebAHQ", "CheXpert", "NIHChest", "Source", "mnist", "mnist_sample", "open_source"]
