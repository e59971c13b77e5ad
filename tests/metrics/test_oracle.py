from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from toys import images

from captum_dcf.metrics import oracle_agreement, oracle_score, oracle_value, validity

LABELS = np.array([3, 5, 8]).repeat(10)


@pytest.fixture
def digits():
    r"""Three clusters of images, called 3, 5 and 8."""
    centers = torch.eye(3).repeat_interleave(10, dim=0)
    noise = 0.1 * torch.randn(30, 3, generator=torch.Generator().manual_seed(3))
    return (centers + noise).view(30, 1, 1, 3)


def logits(x):
    return x.flatten(1)[:, :3]


def test_validity_by_hand():
    # Probabilities of the classes: (e, 1, 1) / (e + 2) = (.576, .212, .212).
    x = torch.tensor([[1.0, 0.0, 0.0]]).view(1, 1, 1, 3).repeat(2, 1, 1, 1)
    assert validity(logits, x, 0).tolist() == [1.0, 1.0]
    assert validity(logits, x, 0, confidence=0.57).tolist() == [1.0, 1.0]
    assert validity(logits, x, 0, confidence=0.58).tolist() == [0.0, 0.0]
    assert validity(logits, x, torch.tensor([0, 1])).tolist() == [1.0, 0.0]


def test_validity_of_one_logit():
    x = torch.tensor([2.0, -2.0]).view(2, 1, 1, 1)
    for model in (lambda x: x.flatten(1), lambda x: x.flatten()):
        assert validity(model, x, 1, output="binary_logit").tolist() == [1.0, 0.0]
        assert validity(model, x, 0, output="binary_logit").tolist() == [0.0, 1.0]
        assert oracle_agreement(model, x, 1, output="binary_logit").tolist() == [1.0, 0.0]
        scores = oracle_score(model, x, torch.tensor([0, 1]), output="binary_logit")
        torch.testing.assert_close(scores, torch.full((2,), 1 / (1 + math.exp(2))))
        with pytest.raises(ValueError, match=r"received \(2.*output='binary_logit'"):
            validity(model, x, 1)
    with pytest.raises(ValueError, match=r"received \(2, 3\)"):
        validity(lambda x: torch.zeros(2, 3), x, 1, output="binary_logit")


def test_validity_of_probabilities():
    def model(x):
        return torch.tensor([[0.75, 0.25], [0.0, 1.0]])

    x = torch.zeros(2, 1, 1, 1)
    assert validity(model, x, torch.tensor([0, 1]), confidence=0.7, output="probabilities").tolist() == [1.0, 1.0]
    # The confidence must be exceeded.
    assert validity(model, x, torch.tensor([0, 1]), confidence=0.75, output="probabilities").tolist() == [0.0, 1.0]
    assert oracle_agreement(model, x, 1, output="probabilities").tolist() == [0.0, 1.0]
    assert oracle_score(model, x, 1, output="probabilities").tolist() == [0.25, 1.0]
    with pytest.raises(ValueError, match=r"probabilities.*received 'percent'"):
        validity(model, x, 1, output="percent")
    for wrong in (torch.tensor([[2.0, -1.0]] * 2), torch.tensor([[0.5, 0.2]] * 2)):
        with pytest.raises(ValueError, match="output='logits'"):
            validity(lambda x, wrong=wrong: wrong, x, 1, output="probabilities")


def test_further_arguments_reach_the_model(classifier):
    x = images(4)
    assert validity(lambda x, factor: factor * logits(x), x, 0, additional_forward_args=0.0).tolist() == [1.0] * 4
    shifted = validity(lambda x, a, b: logits(x) + a - b, x, 0, additional_forward_args=(torch.ones(4, 3), 1.0))
    torch.testing.assert_close(shifted, validity(logits, x, 0))


@pytest.mark.parametrize("confidence", [-0.1, 1.0])
def test_confidence_outside_its_range_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence"):
        validity(logits, images(2), 0, confidence=confidence)


def test_class_the_model_does_not_have_is_refused():
    with pytest.raises(ValueError, match="classes 0 to 2, received class 3"):
        validity(logits, images(2), 3)
    with pytest.raises(ValueError, match=r"received \(2, 1, 4, 4\)"):
        validity(lambda x: x, images(2), 0)


def test_estimator_agrees_as_it_predicts(digits):
    from sklearn.svm import LinearSVC

    oracle = LinearSVC().fit(digits.flatten(1).numpy(), LABELS)
    agreement = oracle_agreement(oracle, digits, 5)
    assert agreement.tolist() == (oracle.predict(digits.flatten(1).numpy()) == 5).astype(float).tolist()
    assert oracle_agreement(oracle, digits, torch.as_tensor(LABELS)).mean() == 1


def test_estimator_scores_its_own_classes(digits):
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    flat = digits.flatten(1).numpy()
    logistic, vectors = LogisticRegression().fit(flat, LABELS), SVC().fit(flat, LABELS)
    np.testing.assert_allclose(oracle_score(logistic, digits, 8), logistic.predict_proba(flat)[:, 2], rtol=1e-5)
    np.testing.assert_allclose(oracle_score(vectors, digits, 5), vectors.decision_function(flat)[:, 1], rtol=1e-5)


def test_score_of_an_estimator_with_two_classes_has_a_sign(digits):
    from sklearn.svm import LinearSVC

    few, labels = digits[:20], LABELS[:20]
    oracle = LinearSVC().fit(few.flatten(1).numpy(), labels)
    decision = oracle.decision_function(few.flatten(1).numpy())
    np.testing.assert_allclose(oracle_score(oracle, few, 5), decision, rtol=1e-5)
    np.testing.assert_allclose(oracle_score(oracle, few, 3), -decision, rtol=1e-5)


def test_module_is_an_oracle(digits, classifier):
    x = images(6)
    probabilities = classifier(x).softmax(1)
    torch.testing.assert_close(oracle_score(classifier, x, 2), probabilities[:, 2].detach())
    assert oracle_agreement(classifier, x, probabilities.argmax(1)).tolist() == [1.0] * 6


def test_value_of_a_regressor():
    from sklearn.linear_model import LinearRegression

    x = images(8)
    means = x.flatten(1).mean(1)
    oracle = LinearRegression().fit(x.flatten(1).numpy(), means.numpy())
    torch.testing.assert_close(oracle_value(oracle, x), means)
    torch.testing.assert_close(oracle_value(lambda x: x.flatten(1).mean(1, keepdim=True), x), means)
    with pytest.raises(TypeError, match="LinearRegression is not a fitted classifier"):
        oracle_score(oracle, x, 1)
    with pytest.raises(ValueError, match=r"one value for each of 8 images, received \(8, 3\)"):
        oracle_value(logits, x)


def test_unknown_class_and_unknown_oracle_are_refused(digits):
    from sklearn.svm import SVC

    oracle = SVC(decision_function_shape="ovo").fit(digits.flatten(1).numpy(), LABELS)
    for judged in (oracle_agreement, oracle_score):
        with pytest.raises(ValueError, match=r"not fitted on the classes \[4\]; it knows \[3, 5, 8\]"):
            judged(oracle, digits, 4)
        with pytest.raises(TypeError, match="scikit-learn estimator"):
            judged("svm", digits, 3)


@pytest.mark.parametrize("classes", [3, 4])
def test_one_score_per_pair_of_classes_is_refused(classes: int):
    from sklearn.svm import SVC

    x, labels = torch.rand(10 * classes, 1, 1, 3), np.arange(classes).repeat(10)
    oracle = SVC(decision_function_shape="ovo").fit(x.flatten(1).numpy(), labels)
    with pytest.raises(ValueError, match="ovr"):
        oracle_score(oracle, x, 1)


def test_one_score_per_pair_is_refused_wherever_the_machine_stands(digits):
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    flat = digits.flatten(1).numpy()
    shapes = {"decision_function_shape": ["ovo"]}
    for wrapped in (
        make_pipeline(StandardScaler(), SVC(decision_function_shape="ovo")),
        GridSearchCV(SVC(decision_function_shape="ovo"), {"C": [1.0]}, cv=2),
        GridSearchCV(SVC(), shapes, cv=2),
        make_pipeline(StandardScaler(), GridSearchCV(SVC(), shapes, cv=2)),
    ):
        with pytest.raises(ValueError, match="ovr"):
            oracle_score(wrapped.fit(flat, LABELS), digits, 3)
    for wrapped in (make_pipeline(StandardScaler(), SVC()), GridSearchCV(SVC(), {"C": [1.0]}, cv=2)):
        scores = wrapped.fit(flat, LABELS).decision_function(flat)[:, 1]
        np.testing.assert_allclose(oracle_score(wrapped, digits, 5), scores, rtol=1e-5)


def test_two_classes_are_one_pair(digits):
    from sklearn.svm import SVC

    flat = digits[:20].flatten(1).numpy()
    oracle = SVC(decision_function_shape="ovo").fit(flat, LABELS[:20])
    np.testing.assert_allclose(oracle_score(oracle, digits[:20], 5), oracle.decision_function(flat), rtol=1e-5)


def test_an_image_that_is_not_finite_leaves_the_others_to_an_estimator(digits):
    from sklearn.linear_model import LinearRegression
    from sklearn.svm import LinearSVC

    flat = digits.flatten(1).numpy()
    oracle, regressor = LinearSVC().fit(flat, LABELS), LinearRegression().fit(flat, LABELS)
    labels, missing = torch.as_tensor(LABELS), digits.clone()
    missing[3, 0, 0, 1] = torch.nan
    agreement = oracle_agreement(oracle, digits, labels)
    score, value = oracle_score(oracle, digits, labels), oracle_value(regressor, digits)
    agreement[3], score[3], value[3] = 0, torch.nan, torch.nan
    torch.testing.assert_close(oracle_agreement(oracle, missing, labels), agreement)
    torch.testing.assert_close(oracle_score(oracle, missing, labels), score, equal_nan=True)
    torch.testing.assert_close(oracle_value(regressor, missing), value, equal_nan=True)
    assert oracle_score(oracle, missing[3:4], 3).isnan().all()
