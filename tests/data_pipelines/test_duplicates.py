"""Equal windows, on either strand, and windows that overlap; all without keeping the bases."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.duplicates import Columns, key, partner, repeats, shared
from data_pipelines.similarity import reverse_complement
from data_pipelines.stored import Window

LENGTH = 3
windows = st.lists(
    st.tuples(st.text("AC", min_size=3, max_size=3), st.integers(0, 1), st.integers(0, 12)),
    max_size=12,
)


def columns(drawn: list[tuple[str, int, int]]) -> Columns:
    own = [Window(bases.encode(), "s", str(contig), start) for bases, contig, start in drawn]
    return Columns.of(own, np.array([contig for _, contig, _ in drawn], np.int32))


@given(st.text("ACGTN", min_size=1))
def test_the_other_strand_differs_in_one_bit(text: str):
    bases = text.encode()
    other = reverse_complement(bases)
    assert key(bases) ^ key(other) == int(bases != other)


@given(windows, windows)
def test_shared_windows_are_those_of_all_pairs(first: list, second: list):
    found = shared(columns(first), columns(second), LENGTH)
    others = {bases.encode() for bases, _, _ in second}
    for nth, (bases, contig, start) in enumerate(first):
        same = bases.encode() in others
        assert found.same[nth] == same
        assert found.reversed[nth] == (not same and reverse_complement(bases.encode()) in others)
        overlap = any(c == contig and abs(s - start) < LENGTH for _, c, s in second)
        assert found.overlapping[nth] == overlap
        if same:
            there = partner(columns(second), int(columns(first).keys[nth]), False)
            assert second[there][0] == bases


@given(st.lists(st.text("ACGT", min_size=2, max_size=2), max_size=20))
def test_repeats_are_counted(texts: list[str]):
    every = [text.encode() for text in texts]
    distinct = set(every)
    reverse = {min(bases, reverse_complement(bases)) for bases in distinct}
    found = repeats(columns([(text, 0, 0) for text in texts]))
    assert found == (len(every) - len(distinct), len(distinct) - len(reverse))
