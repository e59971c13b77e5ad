r"""captum_dcf: counterfactual explanations of image models, in Captum's manner.

Captum tells where a model looks; this tells what would have to change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from captum_dcf.version import __version__

if TYPE_CHECKING:
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
        Verdict,
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
    "Verdict",
    "__version__",
]


if not TYPE_CHECKING:  # a type checker would take any name for one of the package

    def __getattr__(name: str) -> Any:
        # Torch is loaded with the first of these names: the command line answers at once, and to Ctrl-C meanwhile.
        if name in __all__:
            for room in ("search", "generators", "attr"):
                module = import_module(f"{__name__}.{room}")
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
