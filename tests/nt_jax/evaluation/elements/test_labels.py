"""Intervals -> labelled bases -> shares of tokens, against a loop over bases."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.elements import CLASSES, merged
from nt_jax.evaluation.elements.labels import base_labels, rotated, token_fractions
from nt_jax.tokenizers import KmerTokenizer

pairs = st.tuples(st.integers(0, 90), st.integers(0, 90)).map(lambda p: (min(p), max(p)))
classes = st.lists(st.lists(pairs, max_size=6).map(merged), min_size=1, max_size=3)


@given(classes, st.integers(0, 40), st.integers(1, 50))
def test_labels_are_the_bases_of_the_intervals(intervals, start, size):
    labels = base_labels(intervals, start, start + size)
    for row, own in zip(labels, intervals, strict=True):
        for base in range(size):
            assert row[base] == any(a <= start + base < b for a, b in own)


@given(st.text("ACGTN", min_size=1, max_size=60), classes, st.sampled_from([1, 3, 6]))
def test_a_token_is_in_a_class_by_the_share_of_its_bases(sequence, intervals, k):
    tokenizer = KmerTokenizer(k=k)
    ids = tokenizer.encode(sequence)
    labels = base_labels(intervals, 0, len(sequence))
    fractions = token_fractions(labels, tokenizer.bases(ids))
    assert (fractions[:, 0] == 0).all()
    first = 0
    for t, size in enumerate(tokenizer.bases(ids)):
        for c in range(len(intervals)):
            bases = labels[c, first : first + size]
            expected = bases.mean() if size else 0.0
            assert fractions[c, t] == np.float32(expected)
        first += size
    assert first == len(sequence)


def test_pads_cover_nothing():
    labels = np.ones((1, 6), bool)
    fractions = token_fractions(labels, np.array([0, 3, 3, 0, 0]))
    assert fractions.tolist() == [[0, 1, 1, 0, 0]]


@given(st.integers(4, 40), st.integers(0, 5), st.integers(0, 9))
def test_turning_keeps_the_classes_together_and_moves_them(count, pads, number):
    rng = np.random.default_rng(count)
    covered = np.array([0] + [3] * count + [0] * pads)
    fractions = rng.random((2, len(covered)), np.float32)
    fractions[:, covered == 0] = 0
    turned = rotated(fractions, covered, seed=3, number=number)
    assert (turned[:, covered == 0] == 0).all()
    # The same columns in the same order, begun a quarter to three quarters further on.
    own, moved = fractions[:, covered > 0], turned[:, covered > 0]
    offsets = [o for o in range(count) if np.array_equal(np.roll(own, o, axis=1), moved)]
    assert len(offsets) == 1
    assert count // 4 <= offsets[0] <= 3 * count // 4
    again = rotated(fractions, covered, seed=3, number=number)
    assert np.array_equal(again, turned)


def test_offsets_differ_between_windows_and_seeds():
    covered, fractions = np.array([0] + [6] * 200), np.random.default_rng(0).random((1, 201))
    fractions = fractions.astype(np.float32)
    made = {
        rotated(fractions, covered, seed, number).tobytes()
        for seed in range(3)
        for number in range(5)
    }
    assert len(made) >= 12


def test_every_class_has_a_row(windows):
    batch = next(windows.batches(3, seed=0))
    assert batch.fractions.shape == batch.turned.shape == (3, len(CLASSES), 24)
    np.testing.assert_allclose(batch.turned.sum(axis=2), batch.fractions.sum(axis=2), rtol=1e-5)
