"""Every score and every replicate against scikit-learn and scipy, ties and single classes too."""

import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from nt_jax.evaluation import metrics
from nt_jax.evaluation.metrics import SCORERS

KINDS = ("classes", "classes of five", "multilabel", "values", "ranking", "correlation")


def example(kind: str, seed: int, count: int) -> tuple[metrics.Scorer, np.ndarray, np.ndarray]:
    """Truth and a prediction on a coarse grid, so that ties occur."""
    rng = np.random.default_rng(seed)
    if kind.startswith("classes"):
        classes = 2 if kind == "classes" else 5
        labels = rng.integers(classes, size=count)
        logits = 1.5 * np.eye(classes)[labels] + rng.normal(size=(count, classes))
        probabilities = np.round(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 1)
        return SCORERS["classes"], labels, probabilities
    if kind == "multilabel":
        labels = rng.random((count, 3)) < 0.4
        found = np.clip(0.4 * labels + rng.random((count, 3)) * 0.6, 0, 1)
        return SCORERS[kind], labels, np.round(found, 1)
    score = np.round(rng.normal(size=count), 1)
    if kind == "ranking":
        return SCORERS[kind], rng.random(count) < 0.4, score
    return SCORERS[kind], np.round(score + rng.normal(size=count), 1), score


def reference_classes(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The five scores, each by one call of scikit-learn where it defines them."""
    predicted = probabilities.argmax(axis=1)
    classes = probabilities.shape[1]
    binary = classes == 2
    areas: dict[str, list[float]] = {"auroc": [], "auprc": []}
    for c in [1] if binary else range(classes):
        if 0 < (labels == c).sum() < len(labels):
            areas["auroc"].append(reference.roc_auc_score(labels == c, probabilities[:, c]))
            areas["auprc"].append(
                reference.average_precision_score(labels == c, probabilities[:, c])
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "mcc": reference.matthews_corrcoef(labels, predicted),
            "f1": reference.f1_score(
                labels, predicted, average="binary" if binary else "macro", zero_division=0
            ),
            "accuracy": reference.accuracy_score(labels, predicted),
            **{name: np.mean(found) if found else np.nan for name, found in areas.items()},
        }


def reference_scores(kind: str, truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """The same scores from scikit-learn and scipy alone; NaN where they are not defined."""
    if kind.startswith("classes"):
        return reference_classes(truth, prediction)
    if kind == "multilabel":
        each = [
            reference_classes(truth[:, c].astype(int), np.stack([1 - p, p], axis=1))
            for c, p in enumerate(prediction.T)
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return {name: np.nanmean([one[name] for one in each]) for name in each[0]}
    if kind == "ranking":
        if truth.all() or not truth.any():
            return {"auroc": np.nan, "auprc": np.nan}
        return {
            "auroc": reference.roc_auc_score(truth, prediction),
            "auprc": reference.average_precision_score(truth, prediction),
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.ConstantInputWarning)
        found = {
            "spearman": scipy.stats.spearmanr(truth, prediction).statistic,
            "pearson": scipy.stats.pearsonr(truth, prediction).statistic,
        }
    if kind == "values":
        found["r2"] = reference.r2_score(truth, prediction) if np.ptp(truth) else np.nan
    return found


def assert_same(found: dict, expected: dict) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-10, nan_ok=True), name


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), count=st.integers(2, 60))
def test_point_values_are_those_of_scikit_learn_and_scipy(kind: str, seed: int, count: int):
    scorer, truth, prediction = example(kind, seed, count)
    assert_same(scorer.scores(truth, prediction), reference_scores(kind, truth, prediction))


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), count=st.integers(2, 40))
def test_replicates_are_the_scores_of_the_resamples(kind: str, seed: int, count: int):
    """Small samples: resamples with one class, one value or one label are among them."""
    scorer, truth, prediction = example(kind, seed, count)
    drawn = np.random.default_rng(seed).integers(count, size=(6, count))
    found = metrics.bootstrap(scorer, truth, prediction, seed, replicates=6)
    assert tuple(found) == scorer.names
    for row, indices in enumerate(drawn):
        expected = reference_scores(kind, truth[indices], prediction[indices])
        assert_same({name: found[name][row] for name in found}, expected)


@pytest.mark.parametrize(("kind", "name"), [("classes", "mcc"), ("values", "spearman")])
def test_intervals_are_those_of_scipy(kind: str, name: str):
    """The percentile bootstrap of the same rows with other draws: equal but for those draws.

    An end of an interval is an order statistic of R draws. Its standard error, by the binomial
    spread of the ranks around it, is read off the draws themselves.
    """
    scorer, truth, prediction = example(kind, 3, 80)
    replicates = 1000
    drawn = metrics.bootstrap(scorer, truth, prediction, 0, replicates)[name]
    low, high = metrics.interval(drawn)

    def statistic(rows: np.ndarray) -> float:
        if name == "mcc":
            return reference.matthews_corrcoef(truth[rows], prediction[rows].argmax(axis=1))
        return scipy.stats.spearmanr(truth[rows], prediction[rows]).statistic

    expected = scipy.stats.bootstrap(
        (np.arange(len(truth)),),
        statistic,
        n_resamples=replicates,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(1),
    )
    theirs = expected.confidence_interval
    spread = np.sqrt(replicates * 0.025 * 0.975)
    for share, ours, other in ((0.025, low, theirs.low), (0.975, high, theirs.high)):
        # Two independent estimates of one end: their difference is sqrt(2) as uncertain; 4 of it.
        reach = 4 * np.sqrt(2) * spread / replicates
        nearest, farthest = np.clip([share - reach, share + reach], 0, 1)
        around = np.quantile(expected.bootstrap_distribution, [nearest, farthest])
        assert around[0] <= ours <= around[1]
        # The same by the draws' width: a different kind of interval would be off by more.
        assert abs(ours - other) < 0.15 * (theirs.high - theirs.low)
    assert np.std(drawn) == pytest.approx(expected.standard_error, rel=0.1)


def test_a_fold_with_one_class_has_no_area_and_no_correlation():
    labels, probabilities = np.zeros(9, np.int64), np.full((9, 2), 0.5)
    found = metrics.class_scores(labels, probabilities)
    assert found["mcc"] == found["f1"] == 0.0
    assert found["accuracy"] == 1.0
    assert np.isnan([found["auroc"], found["auprc"]]).all()
    replicates = metrics.bootstrap(SCORERS["classes"], labels, probabilities, 0, 5)
    assert np.isnan(replicates["auroc"]).all()
    assert np.isnan(metrics.interval(replicates["auroc"])).all()
    assert np.array_equal(replicates["mcc"], np.zeros(5))
    constant = metrics.value_scores(np.full(5, 0.1), np.arange(5.0))
    assert np.isnan(list(constant.values())).all()


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        correct = rng.random(200) < 0.8
        labels = rng.integers(2, size=200)
        predicted = np.where(correct, labels, 1 - labels)
        replicates = metrics.bootstrap(SCORERS["classes"], labels, np.eye(2)[predicted], trial, 200)
        low, high = metrics.interval(replicates["accuracy"])
        covered += low <= 0.8 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_same_seed_pairs_two_predictions():
    scorer, labels, probabilities = example("classes", 2, 60)
    first = metrics.bootstrap(scorer, labels, probabilities, seed=1, replicates=150)
    second = metrics.bootstrap(scorer, labels, probabilities, seed=1, replicates=150)
    other = metrics.bootstrap(scorer, labels, probabilities, seed=2, replicates=150)
    assert np.array_equal(first["mcc"], second["mcc"])
    assert not np.array_equal(first["mcc"], other["mcc"])


def test_interval_leaves_out_resamples_without_a_value():
    values = np.array([np.nan, *np.linspace(0, 1, 1001)])
    assert metrics.interval(values) == pytest.approx((0.025, 0.975))


def test_differences_are_those_of_the_paired_replicates():
    scorer, labels, probabilities = example("classes", 3, 60)
    other = probabilities[:, ::-1]
    ours, theirs = (metrics.measure(scorer, labels, p, 4, 50) for p in (probabilities, other))
    found = metrics.differences(ours, theirs)
    for name in scorer.names:
        drawn = [metrics.bootstrap(scorer, labels, p, 4, 50)[name] for p in (probabilities, other)]
        low, high = metrics.interval(drawn[0] - drawn[1])
        value = scorer.scores(labels, probabilities)[name] - scorer.scores(labels, other)[name]
        assert found[name] == pytest.approx({"value": value, "low": low, "high": high})
    nothing = metrics.measure(scorer, np.zeros(60, np.int64), probabilities, 4, 50)
    undefined = {"value": None, "low": None, "high": None}
    assert nothing.entries["auroc"] == undefined
    assert metrics.differences(ours, nothing)["auroc"] == undefined
