import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, matthews_corrcoef, roc_auc_score

from nt_jax.evaluation import metrics


def example(seed: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels with every class and probabilities on a coarse grid, so that ties occur."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=count - classes)])
    logits = np.eye(classes)[labels] + rng.normal(size=(count, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probabilities = np.round(probabilities, 1) + 1e-3
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_point_values_are_those_of_scikit_learn(classes: int):
    labels, probabilities = example(0, 80, classes)
    predicted = probabilities.argmax(axis=1)
    found = metrics.scores(labels, probabilities)
    given = probabilities[:, 1] if classes == 2 else probabilities
    assert found["mcc"] == matthews_corrcoef(labels, predicted)
    assert found["accuracy"] == accuracy_score(labels, predicted)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, given, multi_class="ovr"))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(6, 40), st.integers(2, 4))
def test_weights_count_a_sequence_as_often_as_repeating_it(seed: int, count: int, classes: int):
    labels, probabilities = example(seed, count, classes)
    weights = np.random.default_rng(seed).integers(0, 3, size=(3, count)).astype(float)
    weights[:, :classes] += 1
    found = metrics._weighted_scores(labels, probabilities, weights)
    for row, weight in enumerate(weights.astype(int)):
        expected = metrics.scores(np.repeat(labels, weight), np.repeat(probabilities, weight, 0))
        for name in metrics.METRICS:
            assert found[name][row] == pytest.approx(expected[name], abs=1e-12)


def test_replicates_are_scores_of_resamples():
    labels, probabilities = example(1, 50, 3)
    drawn = np.random.default_rng(7).integers(50, size=(4, 50))
    found = metrics.bootstrap(labels, probabilities, seed=7, replicates=4)
    for row, indices in enumerate(drawn):
        expected = metrics.scores(labels[indices], probabilities[indices])
        for name in metrics.METRICS:
            assert found[name][row] == pytest.approx(expected[name], abs=1e-12)


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        correct = rng.random(200) < 0.8
        labels = rng.integers(2, size=200)
        predicted = np.where(correct, labels, 1 - labels)
        replicates = metrics.bootstrap(labels, np.eye(2)[predicted], trial, 200)
        low, high = metrics.interval(replicates["accuracy"])
        covered += low <= 0.8 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_same_seed_pairs_two_classifiers():
    labels, probabilities = example(2, 60, 2)
    first = metrics.bootstrap(labels, probabilities, seed=1, replicates=150)
    second = metrics.bootstrap(labels, probabilities, seed=1, replicates=150)
    other = metrics.bootstrap(labels, probabilities, seed=2, replicates=150)
    assert np.array_equal(first["mcc"], second["mcc"])
    assert not np.array_equal(first["mcc"], other["mcc"])


def test_a_single_class_has_no_auroc_and_no_correlation():
    labels, probabilities = np.zeros(9, np.int64), np.full((9, 2), 0.5)
    found = metrics.scores(labels, probabilities)
    assert np.isnan(found["auroc"])
    assert found["mcc"] == 0.0
    replicates = metrics.bootstrap(labels, probabilities, 0, 5)
    assert np.isnan(replicates["auroc"]).all()
    assert np.isnan(metrics.interval(replicates["auroc"])).all()
    assert np.array_equal(replicates["mcc"], np.zeros(5))


def test_interval_leaves_out_resamples_without_a_value():
    values = np.array([np.nan, *np.linspace(0, 1, 1001)])
    assert metrics.interval(values) == pytest.approx((0.025, 0.975))
