"""The window that shares most k-mers with a question is found, whatever is streamed past it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import sketch
from data_pipelines.leaks import LEAST, WANTED, Answers, Questions, sampling
from tests.data_pipelines.planted import mutated, simulated


def nowhere(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Contigs and starts of windows that overlap no question."""
    return np.full(count, 7), np.zeros(count, np.int64)


def sketched(bases: bytes, scale: int) -> set[int]:
    return set(sketch.kmers(bases, scale)[0].tolist())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 8]))
def test_answers_are_those_of_all_pairs(seed: int, scale: int):
    rng = np.random.default_rng(seed)
    pool = simulated(2_000, seed)
    pieces = [pool[low : low + 200] for low in rng.integers(0, 1_800, 24).tolist()]
    asked, windows = pieces[:8], pieces[8:]
    questions = Questions.of([asked[:3], asked[3:]], scale)
    answers = Answers(questions, length=200)
    for first in (0, 10):
        part = windows[first : first + 10]
        answers.see(part, first, *nowhere(len(part)))
    everything = set().union(*(sketched(window, scale) for window in windows))
    for row, own in enumerate(asked):
        kmers = sketched(own, scale)
        counts = [len(kmers & sketched(window, scale)) for window in windows]
        assert questions.sizes[row] == len(kmers)
        assert answers.shared[row] == max(counts)
        if max(counts):
            assert counts[answers.window[row]] == max(counts)
        share = len(kmers & everything) / max(1, len(kmers))
        assert answers.found()[row] == pytest.approx(share)


def test_windows_that_overlap_a_question_are_no_answer():
    bases = simulated(1_000)
    questions = Questions.of([[bases[:200]]], 1)
    questions = dataclasses.replace(questions, contigs=np.array([3]), starts=np.array([500]))
    answers = Answers(questions, length=200)
    answers.see([bases[:200]] * 2, 0, np.array([3, 3]), np.array([301, 699]))
    assert answers.window.tolist() == [-1]
    answers.see([bases[:200]] * 3, 2, np.array([3, 3, 4]), np.array([699, 700, 500]))
    assert answers.window.tolist() == [3]


def test_kmers_of_many_questions_make_no_pairs():
    unit = simulated(100)
    questions = Questions.of([[unit + simulated(100, seed) for seed in range(1, 7)]], 1)
    answers = Answers(questions, length=200, repeated=5)
    answers.see([unit + simulated(100, 99), unit + simulated(100, 3)], 0, *nowhere(2))
    assert answers.window[2] == 1
    assert [shared > 3 for shared in answers.shared] == [row == 2 for row in range(6)]
    assert (answers.found() > 0.3).all()


@pytest.mark.parametrize("length", [200, 1_000, 6_100, 12_400])
@pytest.mark.parametrize("windows", [10, 100_000, 4_000_000])
def test_sampling_stays_within_memory_and_keeps_enough(length: int, windows: int):
    chosen = sampling(windows, length, most_kmers=10_000_000)
    kmers = length - sketch.K + 1
    assert windows / chosen.every * kmers / chosen.scale <= 10_000_000
    assert kmers / chosen.scale >= LEAST
    if windows == 10:
        assert chosen.every == 1
        assert kmers / chosen.scale >= min(WANTED, kmers)


@pytest.mark.parametrize("length", [200, 6_100])
def test_half_a_window_of_98_percent_is_found_by_the_sparsest_sketch(length: int):
    """500 windows, half of each being in train with 2 % substitutions: almost none is missed."""
    scale = sampling(10**9, length).scale
    missed = 0
    for seed in range(500):
        bases = simulated(length, 1_000 + seed)
        window = mutated(bases[: length // 2], 0.98, seed) + simulated(length // 2, seed)
        missed += len(sketched(bases, scale) & sketched(window, scale)) < 2
    assert missed <= 10


def test_no_questions_are_no_trouble():
    answers = Answers(Questions.of([], 4), length=200)
    answers.see([simulated(200)], 0, *nowhere(1))
    assert answers.found().tolist() == []
