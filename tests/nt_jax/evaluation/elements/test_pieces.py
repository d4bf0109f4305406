"""Pieces of the element probe: pure, within their block, in folds that never split a block."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.elements import Elements, merged
from data_pipelines.fasta import Contig
from nt_jax.evaluation.elements.pieces import CLASSES, find_pieces, group_folds, pure_runs
from nt_jax.evaluation.elements.windows import Genome

pairs = st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda p: (min(p), max(p)))


def genome(size: int = 20_000, start: int = 0) -> Genome:
    """Every 500 bases: 40 5'UTR, 150 CDS, 60 intron, 20 of CDS, 80 of 3'UTR, intergenic."""
    found: dict[str, list] = {name: [] for name in CLASSES}
    for first in range(start + 100, start + size - 500, 500):
        ends = first + np.cumsum([0, 40, 150, 60, 20, 80])
        for name, a, b in zip(
            ("5'UTR", "CDS", "intron", "CDS", "3'UTR"), ends, ends[1:], strict=False
        ):
            found[name].append((int(a), int(b)))
        found["intergenic"].append((int(ends[-1]), first + 500))
    bases = np.frombuffer(b"ACGT", np.uint8)[np.random.default_rng(0).integers(0, 4, size)].copy()
    contig = Contig("c", bases, start, 0, 0, 0)
    elements = Elements({name: merged(own) for name, own in found.items()}, {}, {})
    return Genome((contig,), (elements,), ())


@given(st.lists(st.lists(pairs, max_size=5).map(merged), min_size=1, max_size=4))
def test_pure_runs_are_the_bases_of_one_class(intervals):
    cover = np.zeros((len(intervals), 51), bool)
    for row, own in zip(cover, intervals, strict=True):
        for a, b in own:
            row[a:b] = True
    alone = cover & (cover.sum(axis=0) == 1)
    for row, own in zip(alone, pure_runs(intervals), strict=True):
        bases = np.zeros(51, bool)
        for a, b in own:
            assert not bases[a:b].any()
            bases[a:b] = True
        assert np.array_equal(bases, row)


@pytest.mark.parametrize("start", [0, 1_000_000])
def test_pieces_lie_in_one_class_and_their_window_in_one_block(start):
    made = genome(start=start)
    found = find_pieces(made, window=153, most=0, seed=0)
    assert set(found.labels) == {0, 1, 2, 3, 4}
    for piece in found.pieces:
        own = made.elements[0].intervals[CLASSES[piece.label]] - start
        assert any(a <= piece.start and piece.end <= b for a, b in own)
        assert 30 <= piece.end - piece.start <= 300
        left, right = piece.window
        assert right - left == 153
        assert left // 1530 == (right - 1) // 1530 == piece.block
        if left > 0 and right < 20_000:
            assert abs((left + right) - (piece.start + piece.end)) <= 1
    # The 20-base pieces of CDS are too short.
    assert found.short == 39
    assert found.crossing > 0
    assert found.crossing + len(found.pieces) + found.short == 6 * 39


def test_of_a_long_run_the_middle_is_taken():
    made = genome()
    intervals = {**made.elements[0].intervals, "CDS": np.array([[1000, 2001]])}
    intervals["intron"] = np.array([[1200, 1201]])
    made = dataclasses.replace(made, elements=(Elements(intervals, {}, {}),))
    cds = [p for p in find_pieces(made, 60, 0, 0).pieces if p.label == 1]
    assert [p.run for p in cds if p.run > 150] == [] or all(p.end - p.start <= 300 for p in cds)
    long = dataclasses.replace(
        made, elements=(Elements({**dict.fromkeys(CLASSES, np.zeros((0, 2), np.int64)),
                                  "CDS": np.array([[100, 1101]])}, {}, {}),)
    )  # fmt: skip
    (piece,) = find_pieces(long, 300, 0, 0).pieces
    assert (piece.start, piece.end, piece.run) == (450, 750, 1001)


def test_ns_in_the_window_are_left_out_and_counted():
    made = genome()
    whole = find_pieces(made, 153, 0, 0)
    bases = made.contigs[0].bases.copy()
    bases[2300] = ord("N")
    contig = dataclasses.replace(made.contigs[0], bases=bases)
    fewer = find_pieces(dataclasses.replace(made, contigs=(contig,)), 153, 0, 0)
    assert fewer.unknown > 0
    touched = [p for p in whole.pieces if p.window[0] <= 2300 < p.window[1]]
    assert touched
    assert set(fewer.pieces) == set(whole.pieces) - set(touched)


def test_drawing_is_seeded_and_at_most_so_many_a_class():
    few = find_pieces(genome(), 153, most=7, seed=1)
    assert np.bincount(few.labels).tolist() == [7] * 5
    assert few.pieces == find_pieces(genome(), 153, most=7, seed=1).pieces
    assert few.pieces != find_pieces(genome(), 153, most=7, seed=2).pieces


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 30), st.integers(2, 5))
def test_folds_never_split_a_block(seed, folds):
    pieces = find_pieces(genome(), 153, most=20, seed=seed)
    made = group_folds(pieces, folds, seed)
    assert not isinstance(made, str)
    tested = np.sort(np.concatenate([fold.test for fold in made]))
    assert tested.tolist() == list(range(len(pieces.pieces)))
    for fold in made:
        own, others = pieces.groups[fold.test], pieces.groups[fold.train]
        assert not set(own.tolist()) & set(others.tolist())
        assert set(pieces.labels[fold.train].tolist()) == {0, 1, 2, 3, 4}
        # And no base that the model reads in a tested window is in a training window.
        read = np.zeros(20_000, bool)
        for i in fold.test:
            read[slice(*pieces.pieces[i].window)] = True
        assert not any(read[slice(*pieces.pieces[i].window)].any() for i in fold.train)


def test_too_few_blocks_give_a_reason_instead_of_folds():
    assert group_folds(find_pieces(genome(2_000), 153, 0, 0), 5, 0) == (
        "5'UTR occurs in 1 of the genome's blocks, and 5 folds need 5"
    )
