r"""Fitting generators and classifiers; needs the extra ``train`` (Lightning)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fitting import fit_autoencoder, fit_classifier, fit_flow, fit_gan, fit_regressor, fit_vae

__all__ = ["fit_autoencoder", "fit_classifier", "fit_flow", "fit_gan", "fit_regressor", "fit_vae"]


if not TYPE_CHECKING:  # a type checker would take any name for one of the package

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            # What trains, which is imported late elsewhere.
            import_module("captum_dcf.training.run")
            return getattr(import_module("captum_dcf.training.fitting"), name)
        except ModuleNotFoundError as error:
            raise ImportError(f'training needs {error.name}: pip install "captum_dcf[train]"') from error
