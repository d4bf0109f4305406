"""The supervised control finds a motif that composition does not give away."""

import numpy as np

from nt_jax.evaluation import metrics
from nt_jax.evaluation.cnn import fit_cnn
from nt_jax.evaluation.search import Problem
from nt_jax.evaluation.tasks import Fold

MOTIF, SCRAMBLED = "TATAAGCG", "GATACAGT"


def sequences(count: int) -> tuple[list[str], np.ndarray]:
    """A motif anywhere, or the same letters in another order; lengths differ."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    found = []
    for label in labels:
        background = "".join(rng.choice(list("ACGT"), size=rng.integers(60, 90)))
        place = rng.integers(len(background) - 8)
        motif = MOTIF if label else SCRAMBLED
        found.append(background[:place] + motif + background[place + 8 :])
    return found, labels


def test_a_motif_is_found_and_training_repeats_bitwise():
    texts, labels = sequences(900)
    fold = Fold(np.arange(700), np.arange(700, 900))
    problem = Problem("classes", labels, 2, None, [fold], 0)
    (first,) = fit_cnn(texts, problem)
    assert metrics.class_scores(labels[700:], first.prediction)["mcc"] > 0.7
    (again,) = fit_cnn(texts, problem)
    assert np.array_equal(first.prediction, again.prediction)


def test_held_out_labels_are_not_looked_at():
    texts, labels = sequences(80)
    fold = Fold(np.arange(60), np.arange(60, 80))
    changed = labels.copy()
    changed[60:] = 1 - changed[60:]
    (first,), (second,) = (
        fit_cnn(texts, Problem("classes", truth, 2, None, [fold], 0)) for truth in (labels, changed)
    )
    assert np.array_equal(first.prediction, second.prediction)


def test_what_stands_behind_the_end_does_not_count():
    """The same sequence beside a longer one, which makes it padded further."""
    texts, labels = sequences(80)
    fold = Fold(np.arange(60), np.arange(60, 80))
    (short,) = fit_cnn(texts, Problem("classes", labels, 2, None, [fold], 0))
    longer = [*texts, "ACGT" * 40]
    more = Fold(np.arange(60), np.arange(60, 81))
    (long,) = fit_cnn(longer, Problem("classes", np.append(labels, 0), 2, None, [more], 0))
    np.testing.assert_allclose(long.prediction[:20], short.prediction, atol=1e-3)
