r"""Generators: coordinates of the data, exact (a flow) or approximate."""

from typing import TYPE_CHECKING, Any

from .autoencoder import AutoencoderGenerator
from .base import Generator
from .checkpointed import Checkpointed
from .pixels import Pixels
from .support import Support, measure_support

if TYPE_CHECKING:
    from .flow import NormalizingFlowGenerator

__all__ = [
    "AutoencoderGenerator",
    "Checkpointed",
    "Generator",
    "NormalizingFlowGenerator",
    "Pixels",
    "Support",
    "measure_support",
]


def __getattr__(name: str) -> Any:
    # normflows is loaded when its adapter is first asked for.
    if name == "NormalizingFlowGenerator":
        from .flow import NormalizingFlowGenerator

        return NormalizingFlowGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
