r"""What a metric is, and the metrics that can be asked for by name.

A metric is a function decorated with :func:`metric`. Its parameters, in this order, are

1. judges: what it asks, such as ``classifier``, ``generator``, ``autoencoders`` or ``oracle``; often none;
2. data: any of the names in ``DATA``, by which a benchmark passes them:

   ==================== ==========================================================================================
   ``inputs``           images x, (N, C, H, W)
   ``counterfactuals``  images x', of the same shape
   ``reconstructions``  what the generator makes of x, of the same shape
   ``attributions``     x' - x, or those of a saliency method, of the same shape or with one channel
   ``target``           class that was to be reached: an int, or integers (N,)
   ``source``           class that the model gives x, in the same forms
   ``references``       real images, (M, C, H, W)
   ``reference_labels`` their classes or values, (M,)
   ``start_latents``    latents where a search began, (N, D); only searches in latents have them
   ``end_latents``      latents that it decoded to x', of the same shape
   ==================== ==========================================================================================

3. settings: keyword only.

It returns one value per example, (N,), or one number for the whole set. The decorator refuses other signatures, and the
function then carries ``better``, ``of``, ``judges``, ``data`` and ``settings``.

Examples:
    A metric of one's own, in a module ``my_metrics``:

    >>> @metric(better="lower")
    ... def darkest_change(inputs: Tensor, counterfactuals: Tensor, *, floor: float = 0.0) -> Tensor:
    ...     return (counterfactuals - inputs).flatten(1).amin(1).clamp(min=floor)
    >>> darkest_change.better, darkest_change.of, darkest_change.data, darkest_change.settings
    ('lower', 'example', ('inputs', 'counterfactuals'), ('floor',))

    After ``register("darkest_change", "my_metrics:darkest_change")`` it has a name like those of the package:

    >>> load_metric("l1").better
    'lower'
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, cast

from torch import Tensor

__all__ = ["DATA", "METRICS", "Metric", "load_metric", "metric", "register"]

Better = Literal["higher", "lower"]
Of = Literal["example", "set"]

DATA = (
    "inputs",
    "counterfactuals",
    "reconstructions",
    "attributions",
    "target",
    "source",
    "references",
    "reference_labels",
    "start_latents",
    "end_latents",
)

METRICS: dict[str, str] = {
    "cout": "captum_dcf.metrics.perturbation:cout",
    "deletion": "captum_dcf.metrics.perturbation:deletion",
    "denoised_source": "captum_dcf.metrics.denoised:denoised_source",
    "denoised_validity": "captum_dcf.metrics.denoised:denoised_validity",
    "frechet_distance": "captum_dcf.metrics.realism:frechet_distance",
    "im1": "captum_dcf.metrics.reconstruction:im1",
    "im2": "captum_dcf.metrics.reconstruction:im2",
    "inception_score": "captum_dcf.metrics.realism:inception_score",
    "insertion": "captum_dcf.metrics.perturbation:insertion",
    "l1": "captum_dcf.metrics.distance:l1",
    "l2_input": "captum_dcf.metrics.distance:l2_input",
    "l2_latent": "captum_dcf.metrics.distance:l2_latent",
    "l2_latent_encoded": "captum_dcf.metrics.distance:l2_latent_encoded",
    "likelihood_percentile": "captum_dcf.metrics.likelihood:likelihood_percentile",
    "log_likelihood": "captum_dcf.metrics.likelihood:log_likelihood",
    "neighbor_agreement": "captum_dcf.metrics.neighbor:neighbor_agreement",
    "neighbor_mean": "captum_dcf.metrics.neighbor:neighbor_mean",
    "off_manifold": "captum_dcf.metrics.manifold:off_manifold",
    "oracle_agreement": "captum_dcf.metrics.oracle:oracle_agreement",
    "oracle_score": "captum_dcf.metrics.oracle:oracle_score",
    "oracle_value": "captum_dcf.metrics.oracle:oracle_value",
    "reconstruction_share": "captum_dcf.metrics.reconstruction:reconstruction_share",
    "sparsity": "captum_dcf.metrics.distance:sparsity",
    "ssim": "captum_dcf.metrics.distance:ssim",
    "validity": "captum_dcf.metrics.oracle:validity",
}

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result", bound="Tensor | float", covariant=True)


class Metric(Protocol[Parameters, Result]):
    r"""A function decorated with :func:`metric`.

    Attributes:
        better: "higher" or "lower", or None where neither is better in itself.
        of: "example" for one value per example, (N,); "set" for one number.
        judges: Names of the parameters before the data.
        data: Names of the data that it takes, of ``DATA``.
        settings: Names of the parameters by keyword only.
    """

    __name__: str
    better: Better | None
    of: Of
    judges: tuple[str, ...]
    data: tuple[str, ...]
    settings: tuple[str, ...]

    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result: ...


def metric(
    *, better: Better | None, of: Of = "example"
) -> Callable[[Callable[Parameters, Result]], Metric[Parameters, Result]]:
    r"""Makes a function a metric: checks its parameters and gives it the attributes of :class:`Metric`.

    Args:
        better: Whether a "higher" or a "lower" value is better, or None where neither is.
        of: Whether it gives a value for each "example" or one number for a "set".

    Raises:
        ValueError: Another ``better`` or ``of``.
        TypeError: The parameters are not judges, then data, then settings by keyword only, or none of them is data.
    """
    if better not in ("higher", "lower", None):
        raise ValueError(f'better must be "higher", "lower" or None, received {better!r}')
    if of not in ("example", "set"):
        raise ValueError(f'of must be "example" or "set", received {of!r}')

    def decorate(function: Callable[Parameters, Result]) -> Metric[Parameters, Result]:
        decorated = cast("Metric[Parameters, Result]", function)
        decorated.judges, decorated.data, decorated.settings = _parts(function)
        decorated.better, decorated.of = better, of
        return decorated

    return decorate


def register(name: str, place: str) -> None:
    r"""Gives a metric of one's own a name, for plans and for :func:`load_metric`.

    Args:
        name: A new one.
        place: Where it is, "module:function"; imported when it is first asked for.

    Raises:
        ValueError: The name belongs to another metric, or ``place`` is not of that form.
    """
    module, _, function = place.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), function)):
        raise ValueError(f'the place of a metric is "module:function", received {place!r}')
    if METRICS.get(name, place) != place:
        raise ValueError(f"the name {name!r} already belongs to {METRICS[name]}")
    METRICS[name] = place


def load_metric(name: str) -> Metric[..., Any]:
    r"""The metric of a name in ``METRICS``.

    Raises:
        ValueError: There is no such name.
        TypeError: What was registered is not decorated with :func:`metric`.
    """
    if name not in METRICS:
        raise ValueError(f"there is no metric {name!r}; there are {', '.join(sorted(METRICS))}")
    module, _, function = METRICS[name].partition(":")
    loaded: Metric[..., Any] = getattr(import_module(module), function)
    if not hasattr(loaded, "better"):
        raise TypeError(f"{METRICS[name]} is not decorated with @metric, which says its direction")
    return loaded


def _parts(function: Callable[..., Any]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    # Names of judges, data and settings.
    parameters = inspect.signature(function).parameters.values()
    positional = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    settings = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    judges = [name for name in positional if name not in DATA]
    data = [name for name in positional if name in DATA]
    if not data or judges + data != positional or len(positional) + len(settings) != len(parameters):
        raise TypeError(
            f"a metric takes judges, then data of the names {', '.join(DATA)}, then settings by keyword only; "
            f"received {function.__name__}{inspect.signature(function)}"
        )
    return tuple(judges), tuple(data), tuple(settings)
