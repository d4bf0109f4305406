import numpy as np
import pytest

from nt_jax.errors import InputError
from nt_jax.evaluation import metrics
from nt_jax.evaluation.baselines import kmer_frequencies
from nt_jax.evaluation.classifier import Fold, fit, fit_all, held_out_rows, join, make_folds
from nt_jax.evaluation.tasks import Audit, Split, Task, read_task


def task(train: list[int], test: list[int] | None = None) -> Task:
    def split(labels: list[int]) -> Split:
        return Split(("ACGT",) * len(labels), np.array(labels, np.int64))

    audit = Audit({}, 0, 0, 0, 0, 0)
    return Task("t", ("a", "b"), split(train), None if test is None else split(test), audit)


def noisy(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    features = rng.normal(size=(count, 5)) + labels[:, None]
    return features.astype(np.float32), labels


def test_folds_hold_each_sequence_out_once_and_keep_proportions():
    labels = [0] * 30 + [1] * 15
    folds = make_folds(task(labels), 5, seed=0)
    assert np.array_equal(held_out_rows(folds), np.arange(45))
    for fold in folds:
        assert not set(fold.train) & set(fold.test)
        assert np.bincount(np.array(labels)[fold.test]).tolist() == [6, 3]
    assert not np.array_equal(folds[0].test, make_folds(task(labels), 5, seed=1)[0].test)


def test_a_given_split_is_one_fold():
    (fold,) = make_folds(task([0, 0, 1, 1], [1, 0, 1]), 10, seed=0)
    assert fold.train.tolist() == [0, 1, 2, 3]
    assert fold.test.tolist() == [4, 5, 6]


@pytest.mark.parametrize(
    ("given", "folds", "message"),
    [
        (task([0] * 9 + [1] * 4), 5, "class 'b' has 4 training sequences, at least 5"),
        (task([0] * 9 + [1], [0, 1]), 5, "class 'b' has 1 training sequences, at least 2"),
        (task([0, 1] * 9), 1, "needs at least 2"),
    ],
)
def test_too_small_a_class_is_refused(given: Task, folds: int, message: str):
    with pytest.raises(InputError, match=message):
        make_folds(given, folds, seed=0)


def test_nothing_is_learned_from_held_out_labels():
    features, labels = noisy(60)
    fold = Fold(np.arange(40), np.arange(40, 60))
    first = fit(features, labels, fold, seed=0)
    changed = labels.copy()
    changed[40:] = 1 - changed[40:]
    second = fit(features, changed, fold, seed=0)
    assert np.array_equal(first.probabilities, second.probabilities)
    assert first.inner_mcc == second.inner_mcc


def test_join_puts_predictions_in_the_order_of_the_rows():
    features, labels = noisy(60)
    folds = make_folds(task(labels.tolist()), 3, seed=0)
    fits = fit_all({7: features}, labels, folds, seed=0)[7]
    joined = join(folds, fits)
    for fold, part in zip(folds, fits, strict=True):
        assert np.array_equal(joined[fold.test], part.probabilities)
    assert metrics.class_scores(labels, joined)["mcc"] > 0.5


def test_scale_and_offset_of_features_do_not_matter():
    features, labels = noisy(60)
    fold = Fold(np.arange(40), np.arange(40, 60))
    plain = fit(features, labels, fold, seed=0)
    moved = fit(features * np.float32(50) + np.float32(7), labels, fold, seed=0)
    np.testing.assert_allclose(moved.probabilities, plain.probabilities, atol=2e-3)


def test_finished_hears_every_variant_once():
    features, labels = noisy(30)
    heard: list[int] = []
    folds = make_folds(task(labels.tolist()), 3, seed=0)
    fits = fit_all({2: features, 1: features}, labels, folds, 0, lambda v, mcc: heard.append(v))
    assert heard == [2, 1]
    assert [len(row) for row in fits.values()] == [3, 3]


def test_kmers_predict_a_real_histone_mark(real_data):
    histone = read_task(real_data / "labelled" / "GUE" / "EMP" / "H3")
    assert histone.test is not None
    sequences = histone.train.sequences + histone.test.sequences
    labels = np.concatenate([histone.train.labels, histone.test.labels])
    (fold,) = make_folds(histone, 10, seed=0)
    features = {3: kmer_frequencies(sequences, 3)}
    (found,) = fit_all(features, labels, [fold], seed=0)[3]
    assert found.converged
    # Measured: 0.578, 95 % interval 0.536 to 0.618.
    assert metrics.class_scores(histone.test.labels, found.probabilities)["mcc"] > 0.53
