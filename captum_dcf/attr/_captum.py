r"""The only module that imports a private name of Captum (unchanged there since 2020; a test names it)."""

from captum._utils.typing import TargetType

__all__ = ["TargetType"]
