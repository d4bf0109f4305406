import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nt_jax.evaluation.baselines import kmer_frequencies


@given(st.text("ACGTN", min_size=0, max_size=40), st.integers(1, 4))
def test_frequencies_agree_with_counting_words(sequence: str, k: int):
    words = [sequence[i : i + k] for i in range(len(sequence) - k + 1)]
    words = [word for word in words if "N" not in word]
    found = kmer_frequencies([sequence], k)[0]
    assert found.shape == (4**k,)
    assert np.count_nonzero(found) == len(set(words))
    expected = sorted(words.count(word) / len(words) for word in set(words))
    assert np.sort(found[found > 0]) == pytest.approx(expected)


def test_each_kmer_has_a_column_of_its_own():
    kmers = [a + b for a in "ACGT" for b in "ACGT"]
    found = kmer_frequencies(kmers, 2)
    assert np.array_equal(np.sort(found.argmax(axis=1)), np.arange(16))


def test_sequences_too_short_or_all_n_are_zero():
    assert not kmer_frequencies(["AC", "NNNNNN", ""], 3).any()


@pytest.mark.parametrize("k", [0, 7])
def test_k_outside_its_range_is_refused(k: int):
    with pytest.raises(ValueError, match="k = 1"):
        kmer_frequencies(["ACGT"], k)
