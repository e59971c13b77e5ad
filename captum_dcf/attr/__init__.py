r"""Counterfactual methods, one class each, to be used like those of ``captum.attr``."""

from ._warnings import CounterfactualWarning
from .adversarial import AdversarialExample
from .contrastive import ContrastiveCounterfactual
from .counterfactual import CounterfactualAttribution
from .diffeomorphic import DiffeomorphicCounterfactual
from .latent_shift import LatentShift
from .natural import NaturalCounterfactual
from .perturbation import PerturbationCounterfactual
from .prototype import PrototypeCounterfactual
from .revise import Revise
from .spaces import LatentMethod, PixelMethod

__all__ = [
    "AdversarialExample",
    "ContrastiveCounterfactual",
    "CounterfactualAttribution",
    "CounterfactualWarning",
    "DiffeomorphicCounterfactual",
    "LatentMethod",
    "LatentShift",
    "NaturalCounterfactual",
    "PerturbationCounterfactual",
    "PixelMethod",
    "PrototypeCounterfactual",
    "Revise",
]
