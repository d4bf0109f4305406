"""Which k-mers sequences share, on either strand, from a sample of the k-mers.

A k-mer and its reverse complement are one (the smaller of their two numbers). Of these, the ones
whose hash falls into one part of `scale` are kept: the same ones in every sequence, so that a
sketch of a few sequences is looked up in a stream of any length.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt64

K = 24
"""Bases of a k-mer: 4^24 is far more than any genome has, so a shared one is hardly chance."""
SCALE = 4
"""One k-mer in so many is looked at, unless told otherwise."""

_CODES = np.full(256, 4, np.uint8)
_CODES[np.frombuffer(b"ACGT", np.uint8)] = np.arange(4, dtype=np.uint8)


def kmers(
    bases: bytes, scale: int = SCALE
) -> tuple[UInt64[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The sketched k-mers of a sequence and where they start; those with an N are left out.

    `scale` is a power of two. A sketch of a larger scale is part of each of a smaller one.
    """
    forward, backward, whole = strands(bases, K)
    both = np.minimum(forward, backward)
    kept = whole & (_mixed(both) & np.uint64(scale - 1) == 0)
    return both[kept], np.flatnonzero(kept)


def distinct_kmers(
    sequences: Sequence[bytes], scale: int
) -> tuple[UInt64[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The sketched k-mers of several sequences and the number of the sequence of each.

    Ordered by sequence, then by k-mer; a k-mer stands once for each sequence that has it.
    """
    # A letter that no k-mer holds stands between two sequences.
    values, starts = kmers(b"N".join(sequences), scale)
    ends = np.cumsum([len(sequence) + 1 for sequence in sequences])
    owners = np.searchsorted(ends, starts, side="right")
    order = np.lexsort((values, owners))
    values, owners = values[order], owners[order]
    new = np.ones(len(values), bool)
    new[1:] = (values[1:] != values[:-1]) | (owners[1:] != owners[:-1])
    return values[new], owners[new]


def strands(
    bases: bytes, k: int
) -> tuple[UInt64[np.ndarray, " n"], UInt64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """All k-mers as numbers, those of the other strand at the same places, and which have no N.

    `k` is at most 32. Numbers of k-mers with an N mean nothing.
    """
    codes = np.take(_CODES, np.frombuffer(bases, np.uint8))
    count = len(codes) - k + 1
    if count < 1:
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, bool)
    unknown = np.concatenate([[0], np.cumsum(codes == 4, dtype=np.int32)])
    codes &= 3
    power, other = codes, 3 - codes
    forward = backward = np.zeros_like(codes)
    # As a power is computed: k-mers of 1, 2, 4, ... bases are put together by the bits of k.
    have, size = 0, 1
    for bit in range(k.bit_length()):
        if k >> bit & 1:
            forward = _forward(forward, have, power, size)
            backward = _backward(backward, have, other, size)
            have += size
        if have < k:
            power = _forward(power, size, power, size)
            other = _backward(other, size, other, size)
            size *= 2
    whole = unknown[k:] == unknown[:-k]
    return forward[:count].astype(np.uint64), backward[:count].astype(np.uint64), whole


def contained(
    sketch: UInt64[np.ndarray, " n"], others: UInt64[np.ndarray, " m"]
) -> Bool[np.ndarray, " n"]:
    """Which of the sorted, distinct k-mers of `sketch` are among `others`."""
    found = np.zeros(len(sketch), bool)
    if len(sketch):
        places = np.searchsorted(sketch, others) % len(sketch)
        found[places[sketch[places] == others]] = True
    return found


def _forward(
    first: Shaped[np.ndarray, " n"], a: int, second: Shaped[np.ndarray, " m"], b: int
) -> Shaped[np.ndarray, " l"]:
    """(a+b)-mers: the a-mers, with the b-mers that follow them."""
    first, second = _wide(first, a, second, b)
    return first << 2 * b | second


def _backward(
    first: Shaped[np.ndarray, " n"], a: int, second: Shaped[np.ndarray, " m"], b: int
) -> Shaped[np.ndarray, " l"]:
    """The same on the other strand, where what follows comes first."""
    first, second = _wide(first, a, second, b)
    return first | second << 2 * a


def _wide(
    first: Shaped[np.ndarray, " n"], a: int, second: Shaped[np.ndarray, " m"], b: int
) -> tuple[Shaped[np.ndarray, " l"], Shaped[np.ndarray, " l"]]:
    """Those that stand side by side, as the narrowest numbers that hold a+b bases: for speed."""
    bytes_needed = next(size for size in (1, 2, 4, 8) if 4 * size >= a + b)
    end = min(len(first), len(second) - a)
    kind = f"u{bytes_needed}"
    return first[:end].astype(kind), second[a : a + end].astype(kind)


def _mixed(values: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014), which spreads every bit."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
