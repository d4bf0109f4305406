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


class Alleles(NamedTuple):
    """Alleles of a contig as arrays, sorted by start; slices of them are views.

    No haplotype carries two that conflict. `alt_ends` and `carrier_ends` say where in `alt` and
    `carriers` the part of an allele ends; that of the first begins at 0.
    """

    start: np.ndarray
    """int64[alleles]."""
    length: np.ndarray
    """int64[alleles]: bases replaced."""
    alt_ends: np.ndarray
    """int64[alleles]."""
    carrier_ends: np.ndarray
    """int64[alleles]."""
    alt: np.ndarray
    """uint8[bases], ASCII."""
    carriers: np.ndarray
    """Haplotype numbers, ascending for each allele: uint16, or uint32 where they do not fit."""

    @classmethod
    def of(cls, alleles: Sequence[Allele], haplotypes: int) -> "Alleles":
        """From single ones, sorted."""
        carriers = [allele.carriers for allele in alleles]
        return cls(
            np.array([allele.start for allele in alleles], np.int64),
            np.array([allele.length for allele in alleles], np.int64),
            np.cumsum([len(allele.alt) for allele in alleles], dtype=np.int64),
            np.cumsum([len(own) for own in carriers], dtype=np.int64),
            np.frombuffer(b"".join(allele.alt for allele in alleles), np.uint8),
            np.concatenate([*carriers, np.zeros(0)]).astype(number_type(haplotypes)),
        )


def pack(alleles: Alleles, first: int, end: int, origin: int, haplotypes: int) -> bytes:
    """Alleles `first` to `end` as bytes, their starts counted from `origin`.

    Little-endian: number of alleles and of haplotypes; one uint32 an allele of each start, length,
    bases of ALT and carriers; ALT bases; the carriers of common alleles, one bit a haplotype; those
    of rare ones as numbers.
    """
    alt_ends = _part(alleles.alt_ends, first, end)
    carrier_ends = _part(alleles.carrier_ends, first, end)
    counts = np.diff(carrier_ends)
    row = -(-haplotypes // 8)
    common = counts * alleles.carriers.itemsize >= row
    columns = np.stack(
        [
            alleles.start[first:end] - origin,
            alleles.length[first:end],
            np.diff(alt_ends),
            np.where(common, _PACKED, counts),
        ]
    )
    bits, lists = [], []
    for low, high, many in zip(carrier_ends[:-1], carrier_ends[1:], common, strict=True):
        own = alleles.carriers[low:high]
        if many:
            carries = np.zeros(haplotypes, bool)
            carries[own] = True
            bits.append(np.packbits(carries, bitorder="little").tobytes())
        else:
            lists.append(own.tobytes())
    head = _HEAD.pack(end - first, haplotypes)
    alts = alleles.alt[alt_ends[0] : alt_ends[-1]].tobytes()
    return b"".join([head, columns.astype("<u4").tobytes(), alts, *bits, *lists])


def _part(ends: np.ndarray, first: int, end: int) -> np.ndarray:
    """int64[end - first + 1]: where the parts of the alleles begin, and the last one ends."""
    return np.concatenate([ends[first - 1 : first] if first else [0], ends[first:end]])


def count(packed: bytes) -> int:
    """How many haplotypes there are; 0 where nothing is packed."""
    return _HEAD.unpack_from(packed)[1] if packed else 0


def carried(packed: bytes, haplotype: int) -> list[Change]:
    """What one haplotype carries, from the left to the right.

    Raises IndexError for a haplotype that is not there.
    """
    size, haplotypes = _HEAD.unpack_from(packed)
    if not 0 <= haplotype < haplotypes:
        raise IndexError(f"haplotype {haplotype} of {haplotypes}")
    at = _HEAD.size
    columns = np.frombuffer(packed, "<u4", len(_COLUMNS) * size, at).reshape(len(_COLUMNS), size)
    start, length, alt, carriers = columns
    at += columns.nbytes
    ends = alt.cumsum()
    alts = at
    at += int(ends[-1]) if size else 0
    in_bits = carriers == _PACKED
    common = in_bits.nonzero()[0]
    row = -(-haplotypes // 8)
    # One byte of each row: the rest of the bits is not touched.
    column = np.frombuffer(packed, np.uint8, len(common) * row, at)[haplotype >> 3 :: row]
    chosen = common[(column >> (haplotype & 7) & 1).nonzero()[0]]
    at += len(common) * row
    hits = (np.frombuffer(packed, number_type(haplotypes), -1, at) == haplotype).nonzero()[0]
    if len(hits):
        listed = np.where(in_bits, 0, carriers).cumsum()
        chosen = np.concatenate([chosen, listed.searchsorted(hits, side="right")])
        chosen.sort()
    picked = (values[chosen].tolist() for values in (start, length, alt, ends))
    return [
        Change(first, replaced, packed[alts + end - bases : alts + end])
        for first, replaced, bases, end in zip(*picked, strict=True)
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


class Stretches(NamedTuple):
    """How much of a contig each window needs so that every haplotype has it in full length."""

    start: np.ndarray
    """int64[windows]: first base of the contig that is needed."""
    end: np.ndarray
    """int64[windows]."""
    first: np.ndarray
    """int64[windows]: first of the alleles that touch the stretch."""
    last: np.ndarray
    """int64[windows]: behind the last of them."""


def stretches(
    alleles: Alleles, starts: np.ndarray, length: int, contig: tuple[int, int]
) -> Stretches:
    """The stretch of every window.

    It reaches to the left as far as an allele does that reaches into the window, and to the right
    by as many bases as all alleles together delete, so that the haplotype with the most deletions
    finds enough. What the contig does not have on the right is taken on the left.

    Args:
        alleles: of the contig.
        starts: int64[windows], coordinates of the windows' first bases.
        length: bases of a window.
        contig: coordinates of the contig's first base and of its end.
    """
    ends = alleles.start + alleles.length
    deleted = np.maximum(0, alleles.length - np.diff(alleles.alt_ends, prepend=0))
    behind = np.concatenate([[0], np.cumsum(deleted)])
    # The end of the allele that reaches furthest, of the first i.
    reach = np.concatenate([[contig[0]], np.maximum.accumulate(ends)])
    bases = np.append(alleles.start, contig[1])
    low, high = starts, np.minimum(starts + length, contig[1])
    while True:
        first = np.searchsorted(reach[1:], low, side="right")
        # An insertion in front of the first base touches the stretch as well.
        first = np.minimum(first, np.searchsorted(alleles.start, low))
        last = np.maximum(first, np.searchsorted(alleles.start, high))
        needed = length + behind[last] - behind[first]
        new_high = np.maximum(np.maximum(high, starts + needed), reach[last])
        new_low = np.minimum(low, bases[first])
        short = new_high > contig[1]
        new_low[short] = np.minimum(new_low, contig[1] - needed)[short]
        new_low, new_high = np.maximum(new_low, contig[0]), np.minimum(new_high, contig[1])
        if np.array_equal(new_low, low) and np.array_equal(new_high, high):
            return Stretches(low, high, first, last)
        low, high = new_low, new_high


def number_type(haplotypes: int) -> np.dtype:
    """Type of a haplotype number."""
    return np.dtype("<u2" if haplotypes <= 1 << 16 else "<u4")
