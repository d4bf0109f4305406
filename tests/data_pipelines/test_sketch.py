"""k-mers that two sets share: the same on both strands, none across an N, none missed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines import sketch

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
bases = st.text("ACGTN", max_size=90)


def brute_force(sequence: str) -> set[str]:
    """Canonical k-mers as text."""
    found = set()
    for start in range(len(sequence) - sketch.K + 1):
        kmer = sequence[start : start + sketch.K]
        if "N" not in kmer:
            found.add(min(kmer, kmer[::-1].translate(COMPLEMENT)))
    return found


def number(kmer: str) -> int:
    value = 0
    for base in kmer:
        value = 4 * value + "ACGT".index(base)
    return value


@given(bases)
def test_kept_kmers_are_canonical_ones_of_the_sequence(sequence: str):
    found, starts = sketch.kmers(sequence.encode())
    everything = {number(kmer) for kmer in brute_force(sequence)}
    assert set(found.tolist()) <= everything
    for value, start in zip(found.tolist(), starts.tolist(), strict=True):
        kmer = sequence[start : start + sketch.K]
        assert value == min(number(kmer), number(kmer[::-1].translate(COMPLEMENT)))


@given(bases)
def test_both_strands_have_one_sketch(sequence: str):
    other = sequence[::-1].translate(COMPLEMENT)
    here, there = (sketch.kmers(text.encode())[0] for text in (sequence, other))
    assert sorted(here.tolist()) == sorted(there.tolist())


def test_the_sample_is_one_in_scale():
    rng = np.random.default_rng(0)
    sequence = rng.choice(np.frombuffer(b"ACGT", np.uint8), size=200_000).tobytes()
    assert abs(len(sketch.kmers(sequence)[0]) * sketch.SCALE / 200_000 - 1) < 0.02


@given(st.sets(st.integers(0, 60)), st.lists(st.integers(0, 60)))
def test_contained_is_set_membership(known: set[int], others: list[int]):
    ordered = np.array(sorted(known), np.uint64)
    found = sketch.contained(ordered, np.array(others, np.uint64))
    assert found.tolist() == [value in set(others) for value in sorted(known)]
