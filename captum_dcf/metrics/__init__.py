r"""Metrics of counterfactuals: functions that give one value per example, without a reduction and without a state.

The caller reduces: ``im1(...).mean()``. Only :func:`frechet_distance` and :func:`inception_score` are of a whole set.
What all of them have in common, and how to add one, stands in :mod:`captum_dcf.metrics.registry`.
"""

from .denoised import denoised_source, denoised_validity
from .distance import l1, l2_input, l2_latent, l2_latent_encoded, sparsity, ssim
from .likelihood import likelihood_percentile, log_likelihood
from .manifold import off_manifold
from .neighbor import neighbor_agreement, neighbor_mean
from .oracle import oracle_agreement, oracle_score, oracle_value, validity
from .perturbation import cout, deletion, insertion
from .realism import frechet_distance, inception_score
from .reconstruction import im1, im2, reconstruction_share
from .registry import METRICS, load_metric, metric, register

__all__ = [
    "METRICS",
    "cout",
    "deletion",
    "denoised_source",
    "denoised_validity",
    "frechet_distance",
    "im1",
    "im2",
    "inception_score",
    "insertion",
    "l1",
    "l2_input",
    "l2_latent",
    "l2_latent_encoded",
    "likelihood_percentile",
    "load_metric",
    "log_likelihood",
    "metric",
    "neighbor_agreement",
    "neighbor_mean",
    "off_manifold",
    "oracle_agreement",
    "oracle_score",
    "oracle_value",
    "reconstruction_share",
    "register",
    "sparsity",
    "ssim",
    "validity",
]
