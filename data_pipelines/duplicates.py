"""Windows that two splits share: the same bases, on either strand, or the same place."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt64

from data_pipelines.similarity import reverse_complement
from data_pipelines.stored import Window

_STRAND = np.uint64(1)
_LONGEST = 1 << 36
"""Bases no contig has."""


def key(bases: bytes) -> int:
    """A number of 64 bits for the bases; that of the other strand differs in the lowest bit alone.

    63 bits are a hash: among 28 million windows two others agree with a probability of 1 in 20,000.
    """
    here, there = (
        int.from_bytes(hashlib.blake2b(strand, digest_size=8).digest(), "little") >> 1
        for strand in (bases, reverse_complement(bases))
    )
    return min(here, there) << 1 | (there < here)


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """The windows of a split as far as they are kept in memory: 20 bytes each."""

    keys: UInt64[np.ndarray, " n"]
    contigs: Int[np.ndarray, " n"]
    """int32 numbers of (source, contig)."""
    starts: Int[np.ndarray, " n"]

    @classmethod
    def of(cls, windows: Sequence[Window], contigs: Int[np.ndarray, " n"]) -> "Columns":
        """Of windows whose contigs have these numbers."""
        return cls(
            np.array([key(window.bases) for window in windows], np.uint64),
            contigs.astype(np.int32),
            np.array([window.start for window in windows], np.int64),
        )

    @classmethod
    def joined(cls, parts: Iterable["Columns"]) -> "Columns":
        """One after the other."""
        every = [cls.of([], np.zeros(0, np.int32)), *parts]
        return cls(
            np.concatenate([part.keys for part in every]),
            np.concatenate([part.contigs for part in every]),
            np.concatenate([part.starts for part in every]),
        )


def repeats(columns: Columns) -> tuple[int, int]:
    """Within a split: (windows whose bases an earlier one has, different ones it has reversed)."""
    ordered = np.sort(columns.keys)
    distinct = _distinct(ordered)
    ordered >>= _STRAND
    return len(ordered) - distinct, distinct - _distinct(ordered)


@dataclasses.dataclass(frozen=True, eq=False)
class Shared:
    """Windows of one split that another one has too."""

    same: Bool[np.ndarray, " n"]
    """The very bases."""
    reversed: Bool[np.ndarray, " n"]
    """Those of the other strand, and not these."""
    overlapping: Bool[np.ndarray, " n"]
    """A base of the same contig is in both."""


def shared(first: Columns, second: Columns, length: int) -> Shared:
    """What of `first` is in `second`; windows have `length` bases."""
    # Not np.isin and np.unique: on millions of numbers their hash tables are far slower.
    ordered = np.sort(second.keys)
    same = _among(first.keys, ordered)
    other = _among(first.keys ^ _STRAND, ordered) & ~same
    places = np.sort(second.contigs.astype(np.int64) * _LONGEST + second.starts)
    contigs = first.contigs.astype(np.int64) * _LONGEST
    low = np.searchsorted(places, contigs + np.maximum(first.starts - length + 1, 0))
    high = np.searchsorted(places, contigs + first.starts + length)
    return Shared(same, other, high > low)


def partner(columns: Columns, wanted: int, reversed_: bool) -> int:
    """Index of the first window with this key, or with that of the other strand."""
    return int(np.argmax(columns.keys == np.uint64(wanted ^ reversed_)))


def _distinct(ordered: UInt64[np.ndarray, " n"]) -> int:
    return int(len(ordered) > 0) + int(np.count_nonzero(ordered[1:] != ordered[:-1]))


def _among(values: UInt64[np.ndarray, " n"], ordered: UInt64[np.ndarray, " m"]) -> np.ndarray:
    """bool[n]: which values stand in the sorted ones."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return ordered[places] == values
