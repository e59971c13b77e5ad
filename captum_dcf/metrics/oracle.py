r"""What classifiers say: the explained model itself, and an independent oracle."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from captum_dcf.metrics._arguments import ForwardFunc, class_indices, class_probabilities, run_model
from captum_dcf.metrics.registry import metric

__all__ = ["oracle_agreement", "oracle_score", "oracle_value", "validity"]


@metric(better="higher")
@torch.no_grad()
def validity(
    classifier: ForwardFunc,
    counterfactuals: Tensor,
    target: int | Tensor,
    *,
    confidence: float = 0.0,
    additional_forward_args: Any = None,
) -> Tensor:
    r"""Whether the explained model gives x' the target class, with more than the wanted confidence.

    .. math:: [\, \arg\max_k f_k(x') = t \;\text{and}\; p_t(x') > \Lambda \,]

    0 or 1; higher is better. Its mean is the share of counterfactuals that do what they should (Dombrowski et al.,
    2024, https://arxiv.org/abs/2206.05075).

    Args:
        classifier: The explained model; gives logits (N, C), or the one logit (N,) or (N, 1) of a binary model. For
            one that gives probabilities pass ``lambda x: model(x).log()``.
        counterfactuals: Images x' (N, C, H, W).
        target: Class t: an int, or an integer tensor (N,).
        confidence: Probability Λ that the target class must exceed, in [0, 1).
        additional_forward_args: Further arguments of ``classifier``, one or a tuple.

    Returns:
        0 or 1 (N,), floating point.

    Raises:
        ValueError: A shape does not fit, the model has no class ``target``, or ``confidence`` is not in [0, 1).
    """
    if not 0 <= confidence < 1:
        raise ValueError(f"confidence must be a probability in [0, 1), received {confidence}")
    targets = class_indices(target, counterfactuals)
    probabilities = class_probabilities(run_model(classifier, counterfactuals, additional_forward_args), targets)
    reached = probabilities.gather(1, targets[:, None]).squeeze(1) > confidence
    return (reached & (probabilities.argmax(1) == targets)).to(counterfactuals.dtype)


@metric(better="higher")
@torch.no_grad()
def oracle_agreement(oracle: Any, counterfactuals: Tensor, target: int | Tensor) -> Tensor:
    r"""Whether an independent classifier calls x' the target class as well.

    0 or 1; higher is better: an adversarial example fools the model it was made for, seldom another one (Dombrowski et
    al., 2024, https://arxiv.org/abs/2206.05075).

    Args:
        oracle: A fitted scikit-learn classifier (it gets the images flattened to (N, C·H·W)), or a module or function
            that gives logits as in :func:`validity`. It must not be the explained model.
        counterfactuals: Images x' (N, C, H, W).
        target: Class t: an int, or an integer tensor (N,).

    Returns:
        0 or 1 (N,), floating point.

    Raises:
        TypeError: ``oracle`` is neither an estimator nor callable, or has no classes.
        ValueError: A shape does not fit, or the oracle has no class ``target``.
    """
    targets = class_indices(target, counterfactuals)
    if _is_estimator(oracle):
        _columns(oracle, targets)
        labels = torch.as_tensor(oracle.predict(_flat(counterfactuals))).to(targets.device)
        return (labels == targets).to(counterfactuals.dtype)
    return validity(oracle, counterfactuals, targets)


@metric(better="higher")
@torch.no_grad()
def oracle_score(oracle: Any, counterfactuals: Tensor, target: int | Tensor) -> Tensor:
    r"""The score an independent oracle gives the target class.

    Its probability, in [0, 1]; higher is better. For a scikit-learn classifier without ``predict_proba`` (a support
    vector machine) its ``decision_function`` instead: any real number, higher is better, comparable only with scores of
    the same oracle.

    Args:
        oracle: As in :func:`oracle_agreement`.
        counterfactuals: Images x' (N, C, H, W).
        target: Class t: an int, or an integer tensor (N,).

    Returns:
        Scores (N,).

    Raises:
        TypeError: ``oracle`` is neither an estimator nor callable, or has no classes.
        ValueError: A shape does not fit, or the oracle has no class ``target``.
    """
    targets = class_indices(target, counterfactuals)
    if not _is_estimator(oracle):
        columns, scores = targets, class_probabilities(oracle(counterfactuals), targets)
    else:
        columns, scores = _columns(oracle, targets), _estimator_scores(oracle, counterfactuals)
    return scores.gather(1, columns[:, None]).squeeze(1)


@metric(better=None)
@torch.no_grad()
def oracle_value(oracle: Any, counterfactuals: Tensor) -> Tensor:
    r"""The value an independent regressor gives x', in the units of the regression.

    Neither more nor less is better in itself; the nearer to the value the search was to reach, the better.

    Args:
        oracle: A fitted scikit-learn regressor (it gets the images flattened to (N, C·H·W)), or a module or function
            that gives (N,) or (N, 1). It must not be the explained model.
        counterfactuals: Images x' (N, C, H, W).

    Returns:
        Values (N,).

    Raises:
        TypeError: ``oracle`` is neither an estimator nor callable.
        ValueError: The oracle gives another shape.
    """
    if _is_estimator(oracle):
        values = torch.as_tensor(oracle.predict(_flat(counterfactuals)))
        values = values.to(counterfactuals.device, counterfactuals.dtype)
    else:
        values = oracle(counterfactuals)
    if values.numel() != len(counterfactuals):
        raise ValueError(
            f"a regressor must give one value for each of {len(counterfactuals)} images, received {tuple(values.shape)}"
        )
    return values.reshape(len(counterfactuals))


def _is_estimator(oracle: Any) -> bool:
    if hasattr(oracle, "predict") and not isinstance(oracle, nn.Module):
        return True
    if not callable(oracle):
        raise TypeError(f"an oracle is a scikit-learn estimator, a module or a function, received {oracle!r}")
    return False


def _flat(images: Tensor) -> Any:
    return images.detach().flatten(1).cpu().numpy()


def _columns(oracle: Any, targets: Tensor) -> Tensor:
    # scikit-learn numbers its columns by the sorted labels it saw, not by the labels.
    if not hasattr(oracle, "classes_"):
        raise TypeError(f"{type(oracle).__name__} is not a fitted classifier; a regressor has values: oracle_value")
    known = oracle.classes_.tolist()
    unknown = sorted(set(targets.tolist()) - set(known))
    if unknown:
        raise ValueError(f"the oracle was not fitted on the classes {unknown}; it knows {known}")
    return torch.tensor([known.index(label) for label in targets.tolist()], device=targets.device)


def _estimator_scores(oracle: Any, images: Tensor) -> Tensor:
    has_probabilities = hasattr(oracle, "predict_proba")
    score = oracle.predict_proba if has_probabilities else oracle.decision_function
    scores = torch.as_tensor(score(_flat(images))).to(images.device, images.dtype)
    if scores.dim() == 1:
        scores = torch.stack((-scores, scores), dim=1)
    # Three classes have three pairs: the shape alone does not tell one from the other.
    of_pairs = not has_probabilities and getattr(oracle, "decision_function_shape", "ovr") == "ovo"
    if scores.shape != (len(images), len(oracle.classes_)) or (of_pairs and len(oracle.classes_) > 2):
        raise ValueError(
            f"an oracle must give one score per class, (N, {len(oracle.classes_)}), received {tuple(scores.shape)}; "
            "a support vector machine does with decision_function_shape='ovr'"
        )
    return scores
