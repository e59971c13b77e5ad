r"""The search engine: goals, step rules, the ascent and its result. Imports torch only."""

from .ascent import ascend
from .goal import AtLeast, AtMost, Goal, LeaveClass, Near, ReachClass
from .problem import Problem
from .result import Counterfactual, Status
from .step import Adam, StepRule, UnitGradient

__all__ = [
    "Adam",
    "AtLeast",
    "AtMost",
    "Counterfactual",
    "Goal",
    "LeaveClass",
    "Near",
    "Problem",
    "ReachClass",
    "Status",
    "StepRule",
    "UnitGradient",
    "ascend",
]
