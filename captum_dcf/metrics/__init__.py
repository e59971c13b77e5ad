r"""Measures of counterfactuals: functions that give one value per example, without a reduction and without a state.

The caller reduces: ``im1(...).mean()``. Only :func:`frechet_distance` and :func:`inception_score` are of a whole set.
"""

from .distance import l1, l2_input, l2_latent, sparsity, ssim
from .likelihood import likelihood_percentile, log_likelihood
from .neighbor import neighbor_agreement, neighbor_mean
from .oracle import oracle_agreement, oracle_score, validity
from .perturbation import cout, deletion, insertion
from .realism import frechet_distance, inception_score
from .reconstruction import im1, im2, reconstruction_share

__all__ = [
    "cout",
    "deletion",
    "frechet_distance",
    "im1",
    "im2",
    "inception_score",
    "insertion",
    "l1",
    "l2_input",
    "l2_latent",
    "likelihood_percentile",
    "log_likelihood",
    "neighbor_agreement",
    "neighbor_mean",
    "oracle_agreement",
    "oracle_score",
    "reconstruction_share",
    "sparsity",
    "ssim",
    "validity",
]
