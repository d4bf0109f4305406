"""Windows of individual genomes from the reference and the alleles that haplotypes carry.

Pure functions. No haplotype is ever written down: a record holds a stretch of the reference and,
packed, every allele that touches it with the haplotypes that carry it; `carried` picks those of
one haplotype and `assemble` puts them in.

Haplotypes are numbered 2 * sample + side, as the genotypes `0|1` of a VCF stand in their row.
Coordinates are 0-based; an allele replaces `length` reference bases from `start`, and one that
replaces none is inserted in front of `start`.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_HEAD = struct.Struct("<II")
"""Alleles, haplotypes."""
_COLUMNS = ("start", "length", "alt", "carriers")
_PACKED = 0xFFFFFFFF
"""In place of a number of carriers: one bit a haplotype instead of a list."""


class Allele(NamedTuple):
    """A change of the reference and who carries it."""

    start: int
    """First base that is replaced; where none is, the base in front of which is inserted."""
    length: int
    """Bases replaced."""
    alt: bytes
    """The bases in their place."""
    carriers: np.ndarray
    """Haplotype numbers, ascending."""

    @property
    def end(self) -> int:
        """Behind the last base that is replaced."""
        return self.start + self.length

    @property
    def shortens(self) -> int:
        """Bases by which a haplotype gets shorter; 0 for those that do not shorten it."""
        return max(0, self.length - len(self.alt))


class Change(NamedTuple):
    """An allele of one haplotype."""

    start: int
    length: int
    alt: bytes


class Assembled(NamedTuple):
    """A window of one haplotype."""

    bases: bytes
    """As many as were asked for."""
    first: int
    """Index of its first base in the haplotype of the whole stretch."""


def trim(start: int, ref: str, alt: str) -> tuple[int, str, str]:
    """(start, ref, alt) without the bases with which both begin, and then end."""
    head = 0
    while head < min(len(ref), len(alt)) and ref[head] == alt[head]:
        head += 1
    start, ref, alt = start + head, ref[head:], alt[head:]
    tail = 0
    while tail < min(len(ref), len(alt)) and ref[-1 - tail] == alt[-1 - tail]:
        tail += 1
    return start, ref[: len(ref) - tail], alt[: len(alt) - tail]


def pack(alleles: Sequence[Allele], origin: int, haplotypes: int) -> bytes:
    """The alleles as bytes, their starts counted from `origin`; rare ones as lists, others as bits.

    Little-endian: number of alleles and of haplotypes; one uint32 an allele of each start, length,
    bases of ALT and carriers; ALT bases; bits of the common alleles; carriers of the rare ones.
    """
    number = _number(haplotypes)
    row = -(-haplotypes // 8)
    columns = np.empty((len(_COLUMNS), len(alleles)), "<u4")
    alts, bits, lists = [], [], []
    for i, allele in enumerate(alleles):
        rare = len(allele.carriers) * number.itemsize < row
        count = len(allele.carriers) if rare else _PACKED
        columns[:, i] = allele.start - origin, allele.length, len(allele.alt), count
        alts.append(allele.alt)
        if rare:
            lists.append(allele.carriers.astype(number).tobytes())
        else:
            carries = np.zeros(haplotypes, bool)
            carries[allele.carriers] = True
            bits.append(np.packbits(carries, bitorder="little").tobytes())
    head = _HEAD.pack(len(alleles), haplotypes)
    return b"".join([head, columns.tobytes(), *alts, *bits, *lists])


def carried(packed: bytes, haplotype: int) -> list[Change]:
    """What one haplotype carries, from the left to the right.

    Raises IndexError for a haplotype that is not there.
    """
    if not packed:
        return []
    size, haplotypes = _HEAD.unpack_from(packed)
    if not 0 <= haplotype < haplotypes:
        raise IndexError(f"haplotype {haplotype} of {haplotypes}")
    at = _HEAD.size
    columns = np.frombuffer(packed, "<u4", len(_COLUMNS) * size, at).reshape(len(_COLUMNS), size)
    start, length, alt, carriers = columns
    at += columns.nbytes
    alt_ends = np.cumsum(alt, dtype=np.int64)
    alts = at
    at += int(alt_ends[-1]) if size else 0
    common = np.flatnonzero(carriers == _PACKED)
    rare = np.flatnonzero(carriers != _PACKED)
    row = -(-haplotypes // 8)
    # One byte of each row: the rest of the bits is not touched.
    column = np.frombuffer(packed, np.uint8, len(common) * row, at)[haplotype >> 3 :: row]
    mine = [common[(column >> (haplotype & 7) & 1).astype(bool)]]
    at += len(common) * row
    ids = np.frombuffer(packed, _number(haplotypes), -1, at)
    hits = np.flatnonzero(ids == haplotype)
    if len(hits):
        ends = np.cumsum(carriers[rare], dtype=np.int64)
        mine.append(rare[np.searchsorted(ends, hits, side="right")])
    chosen = np.sort(np.concatenate(mine))
    return [
        Change(first, replaced, packed[alts + end - bases : alts + end])
        for first, replaced, bases, end in zip(
            start[chosen].tolist(),
            length[chosen].tolist(),
            alt[chosen].tolist(),
            alt_ends[chosen].tolist(),
            strict=True,
        )
    ]


def assemble(reference: bytes, changes: Sequence[Change], anchor: int, length: int) -> Assembled:
    """`length` bases of the haplotype from reference base `anchor` on.

    The window begins with the haplotype's first base at or behind `anchor` (what is inserted in
    front of that base belongs to the window before). Where the stretch ends too early, as it does
    at the end of a contig, the window begins earlier; where the whole haplotype of the stretch is
    too short, N fills it up.

    Args:
        reference: the stretch.
        changes: what the haplotype carries, as `carried` gives it.
        anchor: 0-based in the stretch.
        length: bases wanted.
    """
    pieces: list[bytes] = []
    at = size = 0
    first = -1
    for start, replaced, alt in changes:
        if first < 0 and anchor < start:
            first = size + anchor - at
        pieces += (reference[at:start], alt)
        size += start - at
        if first < 0 and anchor < start + replaced:
            first = size + min(anchor - start, len(alt))
        size += len(alt)
        at = start + replaced
    if first < 0:
        first = size + anchor - at
    pieces.append(reference[at:])
    bases = b"".join(pieces)
    first = max(0, min(first, len(bases) - length))
    return Assembled(bases[first : first + length].ljust(length, b"N"), first)


def reference_position(changes: Sequence[Change], index: int) -> int:
    """The reference base (0-based in the stretch) of base `index` of the stretch's haplotype.

    A base of an insertion has the position of the base behind the insertion; the bases of a longer
    replacement that have no counterpart, that of the base behind it.
    """
    at = size = 0
    for start, replaced, alt in changes:
        if index < size + start - at:
            break
        size += start - at
        if index < size + len(alt):
            return start + min(index - size, replaced)
        size += len(alt)
        at = start + replaced
    return at + index - size


class Stretch(NamedTuple):
    """How much of a contig a window of any haplotype needs, and the alleles on it."""

    start: int
    end: int
    alleles: Sequence[Allele]


def stretch(
    alleles: Sequence[Allele], start: int, length: int, contig: tuple[int, int], haplotypes: int
) -> Stretch:
    """The shortest stretch that gives every haplotype `length` bases from `start` on.

    It reaches to the left as far as an allele does that reaches into the window, and to the right
    as far as the haplotype with the most deleted bases needs; what the contig does not have on the
    right is taken on the left.

    Args:
        alleles: of the contig, sorted by start and free of conflicts.
        start: first base of the window.
        length: of the window.
        contig: first base and end of the contig.
        haplotypes: how many there are.
    """
    starts = np.array([allele.start for allele in alleles], np.int64)
    # How far left of a base an allele may start that replaces it.
    longest = max((allele.length for allele in alleles), default=0)
    low, high = start, min(start + length, contig[1])
    while True:
        first, last = np.searchsorted(starts, [low - longest, high])
        own = [a for a in alleles[first:last] if a.start >= low or a.end > low]
        shorter = np.zeros(haplotypes, np.int64)
        for allele in own:
            if allele.shortens:
                shorter[allele.carriers] += allele.shortens
        needed = length + int(shorter.max(initial=0))
        ends = max([high, start + needed, *(allele.end for allele in own)])
        begins = min([low, *(allele.start for allele in own)])
        if ends > contig[1]:
            ends, begins = contig[1], max(min(begins, contig[1] - needed), contig[0])
        if (begins, ends) == (low, high):
            return Stretch(low, high, own)
        low, high = begins, ends


def _number(haplotypes: int) -> np.dtype:
    """Type of a haplotype number."""
    return np.dtype("<u2" if haplotypes <= 1 << 16 else "<u4")
