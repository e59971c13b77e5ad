r"""captum_dcf: counterfactual explanations of image models, in Captum's manner.

Captum tells where a model looks; this tells what would have to change.
"""

from captum_dcf.attr import CounterfactualAttribution, CounterfactualWarning, DiffeomorphicCounterfactual
from captum_dcf.generators import Generator, IdentityGenerator
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
    "AtLeast",
    "AtMost",
    "Counterfactual",
    "CounterfactualAttribution",
    "CounterfactualWarning",
    "DiffeomorphicCounterfactual",
    "Generator",
    "Goal",
    "IdentityGenerator",
    "LeaveClass",
    "Near",
    "ReachClass",
    "Status",
    "StepRule",
    "UnitGradient",
]
