r"""Data: bundled images, synthetic sets and loaders for the real ones."""

from .celeba import CelebA
from .celeba_hq import CelebAHQ
from .chest import chest_sample
from .chexpert import CheXpert
from .faces import faces_attributes, faces_sample
from .mnist import mnist, mnist_sample
from .nih_chest import NIHChest
from .sources import Source, open_source

__all__ = [
    "CelebA",
    "CelebAHQ",
    "CheXpert",
    "NIHChest",
    "Source",
    "chest_sample",
    "faces_attributes",
    "faces_sample",
    "mnist",
    "mnist_sample",
    "open_source",
]
