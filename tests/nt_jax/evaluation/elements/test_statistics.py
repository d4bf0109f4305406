"""The test, the interval and the adjustment, against formulas written another way."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from nt_jax.evaluation.elements.statistics import (
    adjusted,
    enrichment,
    resampled_weights,
    sign_flip,
    usable,
)


def by_hand(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg (1995): the smallest p_j m / rank_j among all ranks not below."""
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty(len(p))
    q[order] = np.minimum(1.0, [scaled[i:].min() for i in range(len(p))])
    return q


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_adjustment_is_benjamini_hochberg(p):
    np.testing.assert_allclose(adjusted(np.array(p)), by_hand(np.array(p)), rtol=1e-9)


def test_what_was_not_tested_is_not_counted():
    q = adjusted(np.array([0.01, np.nan, 0.04]))
    assert np.isnan(q[1])
    np.testing.assert_allclose(q[[0, 2]], [0.02, 0.04])
    assert np.isnan(adjusted(np.array([np.nan]))).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_sign_flips_approach_the_exact_test(seed):
    rng = np.random.default_rng(seed)
    difference = rng.normal(0.4, 1.0, (9, 3)).round(1)
    signs = np.array(list(itertools.product([-1, 1], repeat=9)))
    exact = (np.abs(signs @ difference) >= np.abs(difference.sum(axis=0)) - 1e-9).mean(axis=0)
    np.testing.assert_allclose(sign_flip(difference, seed=1), exact, atol=0.03)


def test_p_values_of_nothing_are_uniform_and_agree_with_wilcoxon_on_something():
    rng = np.random.default_rng(0)
    p = sign_flip(rng.normal(size=(60, 400)), seed=1, flips=999)
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.001
    shifted = rng.normal(0.3, 1.0, (60, 20))
    ours = sign_flip(shifted, seed=1)
    theirs = scipy.stats.wilcoxon(shifted, axis=0).pvalue
    assert scipy.stats.spearmanr(ours, theirs).statistic > 0.8
    assert (sign_flip(shifted, 1, 99) >= 0.01).all()


def test_the_test_does_not_depend_on_units():
    difference = np.random.default_rng(0).normal(0.2, 1, (30, 5))
    np.testing.assert_array_equal(sign_flip(difference, 3), sign_flip(1e-6 * difference, 3))
    np.testing.assert_array_equal(sign_flip(difference, 3), sign_flip(-difference, 3))


def test_the_ratio_is_of_sums_and_its_interval_a_bootstrap_over_windows():
    rng = np.random.default_rng(5)
    total = rng.uniform(1, 3, (40, 2))
    expected = rng.uniform(0.1, 0.6, 40)
    inside = total * expected[:, None] * rng.uniform(1.0, 1.4, (40, 2))
    found = enrichment(inside, total, expected, seed=7)
    hoped = total * expected[:, None]
    np.testing.assert_allclose(found.ratio, inside.sum(axis=0) / hoped.sum(axis=0))
    np.testing.assert_allclose(found.share, inside.sum(axis=0) / total.sum(axis=0))
    reference = scipy.stats.bootstrap(
        (inside[:, 0], hoped[:, 0]), lambda a, b, axis: a.sum(axis) / b.sum(axis),
        paired=True, vectorized=True, method="percentile", rng=1,
    ).confidence_interval  # fmt: skip
    np.testing.assert_allclose([found.low[0], found.high[0]], reference, atol=0.006)
    assert (found.p < 0.001).all()
    assert found.informative.tolist() == [40, 40]


def test_windows_without_anything_observed_and_rounding_are_no_evidence():
    total = np.ones((12, 2))
    total[:4, 1] = 0.0
    expected = np.full(12, 0.25)
    inside = total * 0.25 * (1 + 1e-7)
    found = enrichment(inside, total, expected, seed=0)
    assert found.p[0] == 1.0
    assert np.isnan(found.p[1])
    assert found.informative.tolist() == [12, 8]
    np.testing.assert_allclose(found.ratio, 1, rtol=1e-6)


def test_rare_pairs_are_not_tested():
    """One pair in a hundred windows: 99 differences are negative, and mean nothing."""
    total, expected = np.full((100, 1), 3.0), np.full(100, 0.01)
    inside = np.zeros((100, 1))
    inside[5] = 1.0
    assert sign_flip(inside - total * expected[:, None], seed=0)[0] < 0.1
    assert np.isnan(enrichment(inside, total, expected, seed=0).p[0])
    inside[:10] = 1.0
    assert np.isfinite(enrichment(inside, total, expected, seed=0).p[0])


def test_without_a_window_everything_is_undefined():
    found = enrichment(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0), seed=0)
    assert np.isnan([found.share, found.low, found.high, found.p]).all()


def test_windows_that_can_show_nothing_are_counted():
    used, without, wholly = usable(np.array([0.0, 0.2, 1.0, 0.9, 0.0]))
    assert used.tolist() == [False, True, False, True, False]
    assert (without, wholly) == (2, 1)


def test_resamples_draw_as_many_as_there_are():
    weights = resampled_weights(7, seed=1, replicates=50)
    assert (weights.sum(axis=1) == 7).all()
    assert np.array_equal(weights, resampled_weights(7, seed=1, replicates=50))
    assert weights.mean(axis=0) == pytest.approx(np.ones(7), abs=0.6)
