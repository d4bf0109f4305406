"""Haplotypes from packed alleles, against a base-by-base reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import haplotypes
from data_pipelines.haplotypes import Allele, Alleles, Change

HAPLOTYPES = 20


def by_base(reference: str, changes: list[Change]) -> list[tuple[str, str]]:
    """(inserted in front, the base's own text) of each reference base, and of its end."""
    cells = [["", base] for base in reference] + [["", ""]]
    for start, length, alt in changes:
        text = alt.decode()
        if not length:
            cells[start][0] = text
        for i in range(length):
            cells[start + i][1] = text[i : i + 1] if i < length - 1 else text[i:]
    return [(before, own) for before, own in cells]


def window(reference: str, changes: list[Change], anchor: int, length: int) -> str:
    cells = by_base(reference, changes)
    whole = "".join(before + own for before, own in cells)
    rest = cells[anchor][1] + "".join(before + own for before, own in cells[anchor + 1 :])
    bases = rest if len(rest) >= length else whole[-length:]
    return bases[:length].ljust(length, "N")


def conflict(one: Allele, two: Allele) -> bool:
    if not one.length and not two.length:
        return one.start == two.start
    first, second = sorted((one, two), key=lambda a: (a.start, min(a.length, 1)))
    return second.start < first.end


@st.composite
def genomes(draw) -> tuple[str, list[Allele]]:
    """A reference and sorted alleles that no haplotype has in conflict."""
    reference = draw(st.text("ACGT", min_size=12, max_size=60))
    alleles: list[Allele] = []
    for _ in range(draw(st.integers(0, 10))):
        start = draw(st.integers(0, len(reference) - 1))
        length = draw(st.integers(0, min(6, len(reference) - start)))
        alt = draw(st.text("acgt", min_size=0 if length else 1, max_size=5)).encode()
        wanted = draw(st.sets(st.integers(0, HAPLOTYPES - 1), min_size=1))
        allele = Allele(start, length, alt, np.zeros(0, np.int64))
        for other in alleles:
            if conflict(allele, other):
                wanted -= set(other.carriers.tolist())
        if wanted:
            alleles.append(allele._replace(carriers=np.array(sorted(wanted))))
    return reference, sorted(alleles, key=lambda a: (a.start, min(a.length, 1)))


def packed_of(alleles: list[Allele], haplotypes_: int = HAPLOTYPES) -> bytes:
    return haplotypes.pack(Alleles.of(alleles, haplotypes_), 0, len(alleles), 0, haplotypes_)


def changes_of(alleles: list[Allele], haplotype: int) -> list[Change]:
    return [Change(a.start, a.length, a.alt) for a in alleles if haplotype in a.carriers]


@given(genomes(), st.integers(0, HAPLOTYPES - 1))
def test_packed_alleles_are_those_of_the_haplotype(genome, haplotype):
    _, alleles = genome
    packed = packed_of(alleles)
    assert haplotypes.carried(packed, haplotype) == changes_of(alleles, haplotype)


@given(genomes(), st.integers(0, HAPLOTYPES - 1), st.data())
def test_windows_equal_the_base_by_base_reference(genome, haplotype, data):
    reference, alleles = genome
    anchor = data.draw(st.integers(0, len(reference) - 1))
    length = data.draw(st.integers(1, len(reference) + 10))
    changes = changes_of(alleles, haplotype)
    found = haplotypes.assemble(reference.encode(), changes, anchor, length)
    assert found.bases.decode() == window(reference, changes, anchor, length)


@settings(max_examples=200, deadline=None)
@given(genomes(), st.integers(0, 1000), st.data())
def test_the_stretch_of_a_window_is_enough_for_every_haplotype(genome, offset, data):
    """A record gives what the whole contig gives, wherever the contig begins."""
    reference, alleles = genome
    whole, alleles = alleles, [a._replace(start=a.start + offset) for a in alleles]
    length = data.draw(st.integers(1, len(reference)))
    starts = np.arange(len(reference) - length + 1)
    contig = (offset, offset + len(reference))
    arrays = Alleles.of(alleles, HAPLOTYPES)
    cuts = haplotypes.stretches(arrays, starts + offset, length, contig)
    for start, low, high, first, last in zip(starts.tolist(), *cuts, strict=True):
        assert contig[0] <= low <= start + offset
        assert high <= contig[1]
        piece = reference[low - offset : high - offset].encode()
        packed = haplotypes.pack(arrays, first, last, low, HAPLOTYPES)
        for haplotype in range(HAPLOTYPES):
            changes = haplotypes.carried(packed, haplotype)
            found = haplotypes.assemble(piece, changes, start + offset - low, length)
            expected = window(reference, changes_of(whole, haplotype), start, length)
            assert found.bases.decode() == expected


@given(genomes(), st.integers(0, HAPLOTYPES - 1))
def test_every_base_knows_its_reference_base(genome, haplotype):
    reference, alleles = genome
    changes = changes_of(alleles, haplotype)
    expected: list[int] = []
    for position, (before, own) in enumerate(by_base(reference, changes)):
        expected += [position] * len(before)
        if len(own) > 1:  # the last base of a replacement longer than what it replaces
            expected += [position] + [position + 1] * (len(own) - 1)
        else:
            expected += [position] * len(own)
    found = [haplotypes.reference_position(changes, i) for i in range(len(expected))]
    assert found == expected


def test_rare_and_common_alleles_are_both_found_among_many_haplotypes():
    """Lists of 2-byte and of 4-byte numbers, and rows of bits."""
    for size in (6404, 70_000):
        rng = np.random.default_rng(0)
        alleles = [
            Allele(i, 1, b"T", np.sort(rng.choice(size, min(count, size), replace=False)))
            for i, count in enumerate((1, 3, 700, 5000, size, 2))
        ]
        packed = packed_of(alleles, size)
        for haplotype in (0, 1, 7, 8, size - 1, *rng.integers(size, size=50).tolist()):
            expected = changes_of(alleles, haplotype)
            assert haplotypes.carried(packed, haplotype) == expected


def test_a_haplotype_that_is_not_there():
    packed = packed_of([Allele(0, 1, b"T", np.array([0]))], 4)
    with pytest.raises(IndexError, match="haplotype 4 of 4"):
        haplotypes.carried(packed, 4)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("AT", "A"), (11, "T", "")),
        (("A", "AT"), (11, "", "T")),
        (("A", "G"), (10, "A", "G")),
        (("CAT", "CGT"), (11, "A", "G")),
        (("ATAT", "AT"), (12, "AT", "")),
        (("AC", "AC"), (12, "", "")),
        (("ACG", "TT"), (10, "ACG", "TT")),
    ],
)
def test_trimming(given, expected):
    assert haplotypes.trim(10, *given) == expected
