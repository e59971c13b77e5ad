r"""The paper's oracle: a support vector machine on pixels, which shares nothing with the network it judges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from sklearn.svm import LinearSVC

__all__ = ["fit_svm_oracle"]


def fit_svm_oracle(images: Tensor, labels: Tensor, strength: float = 0.01, seed: int = 0) -> LinearSVC:
    r"""A linear support vector machine, one class against the rest; on all of MNIST 92 % right, as in the paper.

    Args:
        images: Training images (M, C, H, W); their pixels are the features.
        labels: Their classes, (M,).
        strength: Inverse of the regularisation (scikit-learn's C).
        seed: For the order in which the solver visits the examples.

    Returns:
        A scikit-learn estimator for :func:`captum_dcf.metrics.oracle_agreement`; it expects flattened images.

    Raises:
        ImportError: scikit-learn is missing.
        ValueError: Fewer than two classes, or another number of labels than images.
    """
    try:
        from sklearn.svm import LinearSVC
    except ModuleNotFoundError as error:
        raise ImportError(f'an SVM oracle needs {error.name}: pip install "captum_dcf[metrics]"') from error
    if len(images) != len(labels):
        raise ValueError(f"there must be one label per image: received {len(labels)} for {len(images)}")
    classes = sorted(set(labels.tolist()))
    if len(classes) < 2:
        raise ValueError(f"an oracle needs two classes or more, received {classes}")
    return LinearSVC(C=strength, random_state=seed).fit(images.flatten(1).numpy(), labels.numpy())
