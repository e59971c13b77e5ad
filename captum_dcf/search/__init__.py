r"""The search: goals, models, coordinates, one loop, and the searchers it runs. Imports torch only."""

from .ascent import Ascent
from .coordinates import Coordinates
from .engine import run
from .goal import AtLeast, AtMost, Goal, LeaveClass, Near, ReachClass, Verdict
from .model import Model
from .options import Options
from .problem import Evaluation, Problem
from .result import Counterfactual, Status
from .searcher import Move, Searcher
from .step import Adam, StepRule, UnitGradient

__all__ = [
    "Adam",
    "Ascent",
    "AtLeast",
    "AtMost",
    "Coordinates",
    "Counterfactual",
    "Evaluation",
    "Goal",
    "LeaveClass",
    "Model",
    "Move",
    "Near",
    "Options",
    "Problem",
    "ReachClass",
    "Searcher",
    "Status",
    "StepRule",
    "UnitGradient",
    "Verdict",
    "run",
]
