"""Identity, share, strand and place of what one sequence has of another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.similarity import best_match, reverse_complement
from tests.data_pipelines.planted import mutated, simulated


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("identity", [1.0, 0.99, 0.98, 0.95])
@pytest.mark.parametrize("length", [200, 1_000, 6_200])
def test_identity_strand_and_place_are_estimated(length: int, identity: float, reverse: bool):
    target = simulated(18_000)
    start = 3_000
    query = mutated(target[start : start + length], identity)
    if reverse:
        query = reverse_complement(query)
    match = best_match(query, target)
    assert match is not None
    assert match.identity == pytest.approx(identity, abs=0.01 if length > 500 else 0.025)
    assert match.share > 0.9
    assert match.reverse == reverse
    assert abs(match.target_start - start) < 0.1 * length
    assert match.exact == (identity == 1)


@pytest.mark.parametrize("identity", [1.0, 0.98])
def test_the_share_is_of_the_stretch_alone(identity: float):
    target = simulated(18_000)
    query = simulated(1_000, 1) + mutated(target[5_000:7_000], identity) + simulated(1_000, 2)
    match = best_match(query, target)
    assert match is not None
    assert match.share == pytest.approx(0.5, abs=0.02)
    assert match.identity == pytest.approx(identity, abs=0.01)
    assert match.start == pytest.approx(1_000, abs=60)
    assert match.target_start == pytest.approx(5_000, abs=60)


def test_insertions_and_deletions_do_not_end_a_stretch():
    target = simulated(9_000)
    query = target[1_000:2_000] + target[2_030:3_000] + b"ACGTACGTAC" + target[3_000:4_000]
    match = best_match(query, target)
    assert match is not None
    assert match.share == 1
    assert match.identity > 0.99


def test_ns_count_neither_way():
    target = simulated(2_000)
    query = target[500:700] + b"N" * 300 + target[1_000:1_100]
    match = best_match(query, target)
    assert match is not None
    assert (match.identity, match.share, match.exact) == (1.0, 1.0, False)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(60, 6_200))
def test_unrelated_sequences_share_no_stretch_to_speak_of(seed: int, length: int):
    match = best_match(simulated(length, seed), simulated(18_000, seed + 1))
    assert match is None or match.share < 0.5


@given(st.text("ACGTN", max_size=40), st.text("ACGTN", max_size=80))
def test_any_sequences_are_compared(query: str, target: str):
    match = best_match(query.encode(), target.encode())
    if match is not None:
        assert 0 <= match.identity <= 1
        assert 0 < match.share <= 1
        assert 0 <= match.target_start < len(target)
    if query and query in target:
        assert match is not None
        assert match.exact


def test_the_other_strand_read_twice_is_the_first():
    bases = simulated(99) + b"N"
    assert reverse_complement(reverse_complement(bases)) == bases
    assert np.array_equal(reverse_complement(b"AACGN"), b"NCGTT")
