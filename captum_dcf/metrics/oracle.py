r"""What classifiers say: the explained model itself, and an independent oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_dcf.metrics._arguments import check_images, class_indices, result_dtype
from captum_dcf.metrics._judges import ForwardFunc, OutputKind, ask, class_probabilities
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
    output: OutputKind = "logits",
    additional_forward_args: Any = None,
) -> Tensor:
    r"""Whether the explained model gives x' the target class, with more than the wanted confidence.

    .. math:: [\, \arg\max_k f_k(x') = t \;\text{and}\; p_t(x') > \Lambda \,]

    0 or 1; higher is better; 0 where the model gives NaN. Its mean is the share of counterfactuals that do what they
    should (Dombrowski et al., 2024, https://arxiv.org/abs/2206.05075).

    Args:
        classifier: The explained model.
        counterfactuals: Images x' (N, C, H, W).
        target: Class t: an int, or an integer tensor (N,).
        confidence: Probability Λ that the target class must exceed, in [0, 1).
        output: What ``classifier`` gives: "logits" or "probabilities" (N, C), or "binary_logit" (N,) or (N, 1), the
            logit of class 1.
        additional_forward_args: Further arguments of ``classifier``, one or a tuple.

    Returns:
        0 or 1 (N,), floating point.

    Raises:
        ValueError: A shape does not fit, the model has no class ``target``, or ``confidence`` is not in [0, 1).
    """
    if not 0 <= confidence < 1:
        raise ValueError(f"confidence must be a probability in [0, 1), received {confidence}")
    check_images(counterfactuals=counterfactuals)
    targets = class_indices(target, counterfactuals)
    probabilities = class_probabilities(classifier, counterfactuals, targets, output, additional_forward_args)
    reached = probabilities.gather(1, targets[:, None]).squeeze(1) > confidence
    return (reached & (probabilities.argmax(1) == targets)).to(result_dtype(counterfactuals))


@metric(better="higher")
@torch.no_grad()
def oracle_agreement(
    oracle: Any, counterfactuals: Tensor, target: int | Tensor, *, output: OutputKind = "logits"
) -> Tensor:
    r"""Whether an independent classifier calls x' the target class as well.

    0 or 1; higher is better: an adversarial example fools the model it was made for, seldom another one (Dombrowski et
    al., 2024, https://arxiv.org/abs/2206.05075). 0 where a pixel is not finite.

    Args:
        oracle: A fitted scikit-learn classifier (it gets the images flattened to (N, C·H·W)), or a module or function
            that gives ``output``. It must not be the explained model.
        counterfactuals: Images x' (N, C, H, W).
        target: Class t: an int, or an integer tensor (N,).
        output: What a module or function gives, as for :func:`validity`.

    Returns:
        0 or 1 (N,), floating point.

    Raises:
        TypeError: ``oracle`` is neither an estimator nor callable, or has no classes.
        ValueError: A shape does not fit, or the oracle has no class ``target``.
    """
    check_images(counterfactuals=counterfactuals)
    targets = class_indices(target, counterfactuals)
    if not _is_estimator(oracle):
        return validity(oracle, counterfactuals, targets, output=output)
    _columns(oracle, targets)
    labels = _estimate(oracle.predict, counterfactuals)
    return (labels == targets).to(result_dtype(counterfactuals))


@metric(better="higher")
@torch.no_grad()
def oracle_score(
    oracle: Any, counterfactuals: Tensor, target: int | Tensor, *, output: OutputKind = "logits"
) -> Tensor:
    r"""The score an independent oracle gives the target class.

    Its probability, in [0, 1]; higher is better. For a scikit-learn classifier without ``predict_proba`` (a support
    vector machine) its ``decision_function`` instead: any real number, higher is better, comparable only with scores of
    the same oracle. NaN where a pixel is not finite.

    Args:
        oracle: As in :func:`oracle_agreement`.
        counterfactuals: Images x' (N, C, H, W).
        target: Class t: an int, or an integer tensor (N,).
        output: What a module or function gives, as for :func:`validity`.

    Returns:
        Scores (N,).

    Raises:
        TypeError: ``oracle`` is neither an estimator nor callable, or has no classes.
        ValueError: A shape does not fit, or the oracle has no class ``target``.
    """
    check_images(counterfactuals=counterfactuals)
    targets = class_indices(target, counterfactuals)
    if not _is_estimator(oracle):
        columns, scores = targets, class_probabilities(oracle, counterfactuals, targets, output)
    else:
        columns, scores = _columns(oracle, targets), _estimator_scores(oracle, counterfactuals)
    return scores.gather(1, columns[:, None]).squeeze(1)


@metric(better=None)
@torch.no_grad()
def oracle_value(oracle: Any, counterfactuals: Tensor) -> Tensor:
    r"""The value an independent regressor gives x', in the units of the regression.

    Neither more nor less is better in itself; the nearer to the value the search was to reach, the better. NaN where a
    pixel is not finite.

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
    check_images(counterfactuals=counterfactuals)
    if _is_estimator(oracle):
        values = _estimate(oracle.predict, counterfactuals)
    elif len(counterfactuals):
        values = ask(oracle, counterfactuals)
    else:
        values = counterfactuals.new_zeros(0)
    if values.numel() != len(counterfactuals):
        raise ValueError(
            f"a regressor must give one value for each of {len(counterfactuals)} images, received {tuple(values.shape)}"
        )
    return values.reshape(len(counterfactuals)).to(result_dtype(counterfactuals))


def _is_estimator(oracle: Any) -> bool:
    if hasattr(oracle, "predict") and not isinstance(oracle, nn.Module):
        return True
    if not callable(oracle):
        raise TypeError(f"an oracle is a scikit-learn estimator, a module or a function, received {oracle!r}")
    return False


def _estimate(method: Callable[[Any], Any], images: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    # What a method of an estimator gives: (N, ...), of this shape where there is nothing to ask. Estimators refuse an
    # empty set, and all images if a pixel of one is not finite: NaN for that one.
    flat = images.flatten(1)
    finite = flat.isfinite().all(1)
    if not finite.any():
        return images.new_full((len(images), *shape), torch.nan, dtype=result_dtype(images))
    given = torch.as_tensor(method(flat[finite].cpu().numpy())).to(images.device, result_dtype(images))
    answers = given.new_full((len(images), *given.shape[1:]), torch.nan)
    answers[finite] = given
    return answers


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
    classes = len(oracle.classes_)
    scores = _estimate(score, images, (classes,))
    if scores.dim() == 1:
        scores = torch.stack((-scores, scores), dim=1)
    # Three classes have three pairs: the shape alone does not tell one from the other.
    of_pairs = not has_probabilities and classes > 2 and _scores_pairs(oracle)
    if of_pairs or scores.shape != (len(images), classes):
        raise ValueError(
            f"an oracle must give one score per class, (N, {classes}), received {tuple(scores.shape)}"
            f"{' of pairs of classes' if of_pairs else ''}; a support vector machine, alone or within another "
            "estimator, does with decision_function_shape='ovr'"
        )
    return scores


def _scores_pairs(oracle: Any) -> bool:
    # Whether an estimator, or one that it is made of, is set to give one score per pair of classes.
    chosen = getattr(oracle, "best_estimator_", oracle)
    parts = [chosen, *(chosen.get_params().values() if hasattr(chosen, "get_params") else ())]
    parts = [getattr(part, "best_estimator_", part) for part in parts]
    return any(getattr(part, "decision_function_shape", None) == "ovo" for part in parts)
