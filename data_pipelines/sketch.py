"""Which k-mers two sets of sequences share, on either strand, from a sample of the k-mers.

A k-mer and its reverse complement are one (the smaller of their two numbers). Of these, the ones
whose hash falls into one part of `SCALE` are kept: the same ones in every sequence, so that a
sketch of a few sequences is looked up in a stream of any length.
"""

import numpy as np
from jaxtyping import Bool, Int, UInt64

K = 24
"""Bases of a k-mer: 4^24 is far more than any genome has, so a shared one is hardly chance."""
SCALE = 4
"""One k-mer in so many is looked at."""

_CODES = np.full(256, 4, np.uint64)
_CODES[np.frombuffer(b"ACGT", np.uint8)] = np.arange(4, dtype=np.uint64)


def kmers(bases: bytes) -> tuple[UInt64[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The sketched k-mers of a sequence and where they start; those with an N are left out."""
    codes = _CODES[np.frombuffer(bases, np.uint8)]
    count = len(codes) - K + 1
    if count < 1:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    unknown = np.concatenate([[0], np.cumsum(codes == 4)])
    whole = unknown[K:] == unknown[:-K]
    codes &= np.uint64(3)
    forward, backward = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    for offset in range(K):
        part = codes[offset : offset + count]
        forward |= part << np.uint64(2 * (K - 1 - offset))
        backward |= (np.uint64(3) - part) << np.uint64(2 * offset)
    both = np.minimum(forward, backward)
    kept = whole & (_mixed(both) % np.uint64(SCALE) == 0)
    return both[kept], np.flatnonzero(kept)


def contained(
    sketch: UInt64[np.ndarray, " n"], others: UInt64[np.ndarray, " m"]
) -> Bool[np.ndarray, " n"]:
    """Which of the sorted, distinct k-mers of `sketch` are among `others`."""
    found = np.zeros(len(sketch), bool)
    if len(sketch):
        places = np.searchsorted(sketch, others) % len(sketch)
        found[places[sketch[places] == others]] = True
    return found


def _mixed(values: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014), which spreads every bit."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
