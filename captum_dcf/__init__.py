r"""captum_dcf: counterfactual explanations of image models, in Captum's manner.

Captum tells where a model looks; this tells what would have to change.
"""

from captum_dcf.attr import (
    AdversarialExample,
    ContrastiveCounterfactual,
    CounterfactualAttribution,
    CounterfactualWarning,
    DiffeomorphicCounterfactual,
    LatentShift,
    NaturalCounterfactual,
    PerturbationCounterfactual,
    PrototypeCounterfactual,
    Revise,
)
from captum_dcf.generators import Generator, Pixels
from captum_dcf.search import (
    Adam,
    AtLeast,
    AtMost,
    Counterfactual,
    Goal,
    LeaveClass,
    Near,
    ReachClass,
    Status,
    StepRule,
    UnitGradient,
)

__all__ = [
    "Adam",
    "AdversarialExample",
    "AtLeast",
    "AtMost",
    "ContrastiveCounterfactual",
    "Counterfactual",
    "CounterfactualAttribution",
    "CounterfactualWarning",
    "DiffeomorphicCounterfactual",
    "Generator",
    "Goal",
    "LatentShift",
    "LeaveClass",
    "NaturalCounterfactual",
    "Near",
    "PerturbationCounterfactual",
    "Pixels",
    "PrototypeCounterfactual",
    "ReachClass",
    "Revise",
    "Status",
    "StepRule",
    "UnitGradient",
]
