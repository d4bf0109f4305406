"""For each of many sequences, the one window of a stream that shares most of its k-mers.

The sequences that are asked about (held-out windows, labelled sequences) are held as sorted arrays
of sketched k-mers; the windows of the dataset are streamed past them, so memory grows with the
questions and not with the genomes.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt64

from data_pipelines import sketch

MOST_KMERS = 2**25
"""K-mers held at a time, 12 bytes each: 0.4 GB, and at most 2 GB while they are being sorted."""
WANTED, LEAST = 128, 24
"""Sketched k-mers of a sequence: as many as wanted while memory allows, and at least so many."""
REPEATED = 32
"""A k-mer that stands in more sequences than this is a repeat, and no evidence for a pair."""
_SLICE = 1 << 22
"""Pairs looked at in one go, so that repeats cannot fill the memory."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Which sequences are looked up, and by which share of their k-mers."""

    scale: int
    """One k-mer in so many, a power of two."""
    every: int
    """One sequence in so many, evenly spaced."""


def sampling(sequences: int, length: int, most_kmers: int = MOST_KMERS) -> Sampling:
    """What fits into memory; k-mers are thinned first, then sequences.

    Args:
        sequences: how many there are.
        length: bases of one of them.
        most_kmers: k-mers to hold at most.
    """
    kmers = max(1, length - sketch.K + 1)
    scale = _power_of_two(kmers // WANTED)
    while sequences * kmers > most_kmers * scale and kmers >= 2 * scale * LEAST:
        scale *= 2
    return Sampling(scale, max(1, -(-sequences * kmers // (most_kmers * scale))))


@dataclasses.dataclass(frozen=True, eq=False)
class Questions:
    """The sketches of the sequences that are asked about, R of them with M k-mers."""

    kmers: UInt64[np.ndarray, " m"]
    """Distinct and sorted."""
    offsets: Int[np.ndarray, " m+1"]
    """K-mer i stands in the sequences `rows[offsets[i]:offsets[i + 1]]`."""
    rows: Int[np.ndarray, " M"]
    """int32."""
    sizes: Int[np.ndarray, " R"]
    """Distinct sketched k-mers of each sequence."""
    contigs: Int[np.ndarray, " R"]
    """Number of the contig of each; negative: none of the dataset."""
    starts: Int[np.ndarray, " R"]
    """Its coordinate there."""
    scale: int

    @classmethod
    def of(cls, batches: Iterable[Sequence[bytes]], scale: int) -> "Questions":
        """Sketches the sequences of all batches, numbered in that order; of no contig."""
        values, rows, sizes = [], [], [np.zeros(0, np.int64)]
        count = 0
        for batch in batches:
            for part in _parts(batch):
                own, owners = sketch.distinct_kmers(part, scale)
                values.append(own)
                rows.append((owners + count).astype(np.int32))
                sizes.append(np.bincount(owners, minlength=len(part)))
                count += len(part)
        every = np.concatenate([np.zeros(0, np.uint64), *values])
        del values
        order = np.argsort(every, kind="stable")
        every = every[order]
        places = np.concatenate([np.zeros(0, np.int32), *rows])[order]
        first = np.flatnonzero(np.concatenate([[True], every[1:] != every[:-1]])[: len(every)])
        none = np.full(count, -1, np.int64)
        return cls(
            every[first],
            np.append(first, len(every)),
            places,
            np.concatenate(sizes),
            none,
            none,
            scale,
        )


class Answers:
    """The best window for each of R questions, among those of one split seen so far."""

    def __init__(self, questions: Questions, length: int, repeated: int = REPEATED) -> None:
        """`length`: bases of a window of the dataset; windows closer than that overlap."""
        self._questions, self._length = questions, length
        self._repeated = repeated
        self._found = np.zeros(len(questions.kmers), bool)
        many = len(questions.sizes)
        self.shared = np.zeros(many, np.int64)
        """Sketched k-mers that the best window shares with each question."""
        self.window = np.full(many, -1, np.int64)
        """Number of that window; -1 where none shares any."""

    def see(
        self,
        windows: Sequence[bytes],
        first: int,
        contigs: Int[np.ndarray, " n"],
        starts: Int[np.ndarray, " n"],
    ) -> None:
        """Looks at windows numbered from `first` on, with their contigs and coordinates.

        A window that overlaps a question on its contig is passed over.
        """
        done = 0
        for part in _parts(windows):
            span = slice(done, done + len(part))
            self._see(part, first + done, contigs[span], starts[span])
            done += len(part)

    def found(self) -> Float[np.ndarray, " R"]:
        """Share of the k-mers of each question that stand anywhere in the windows; 0 without any.

        Windows that overlap the question count here.
        """
        questions = self._questions
        counts = np.diff(questions.offsets)
        hits = np.bincount(
            questions.rows, weights=np.repeat(self._found, counts), minlength=len(questions.sizes)
        )
        return hits / np.maximum(questions.sizes, 1)

    def _see(
        self,
        windows: Sequence[bytes],
        first: int,
        contigs: Int[np.ndarray, " n"],
        starts: Int[np.ndarray, " n"],
    ) -> None:
        questions = self._questions
        if not len(questions.kmers):
            return
        values, owners = sketch.distinct_kmers(windows, questions.scale)
        places = np.minimum(np.searchsorted(questions.kmers, values), len(questions.kmers) - 1)
        hit = questions.kmers[places] == values
        places, owners = places[hit], owners[hit]
        self._found[places] = True
        counts = questions.offsets[places + 1] - questions.offsets[places]
        rare = counts <= self._repeated
        for part in _slices(counts[rare]):
            self._pairs(places[rare][part], owners[rare][part], first, contigs, starts)

    def _pairs(
        self,
        places: Int[np.ndarray, " h"],
        owners: Int[np.ndarray, " h"],
        first: int,
        contigs: Int[np.ndarray, " n"],
        starts: Int[np.ndarray, " n"],
    ) -> None:
        """Takes over what is better of the pairs that these k-mers make."""
        questions = self._questions
        begins = questions.offsets[places]
        counts = questions.offsets[places + 1] - begins
        nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = questions.rows[np.repeat(begins, counts) + nth].astype(np.int64)
        targets = np.repeat(owners, counts)
        apart = (contigs[targets] != questions.contigs[rows]) | (
            np.abs(starts[targets] - questions.starts[rows]) >= self._length
        )
        many = len(questions.sizes)
        pairs, shared = np.unique(targets[apart] * many + rows[apart], return_counts=True)
        order = np.lexsort((-pairs, shared))
        pairs, shared = pairs[order], shared[order]
        rows = pairs % many
        better = shared > self.shared[rows]
        # Of several values for a place NumPy keeps the last: the largest, of the first window.
        self.shared[rows[better]] = shared[better]
        self.window[rows[better]] = first + pairs[better] // many


def _parts(sequences: Sequence[bytes], most: int = 1 << 18) -> Iterator[Sequence[bytes]]:
    """Consecutive sequences of about `most` bases together."""
    begin, bases = 0, 0
    for number, sequence in enumerate(sequences):
        bases += len(sequence)
        if bases >= most:
            yield sequences[begin : number + 1]
            begin, bases = number + 1, 0
    if begin < len(sequences):
        yield sequences[begin:]


def _slices(counts: Int[np.ndarray, " n"]) -> Iterator[slice]:
    """Cuts `counts` so that each part adds up to about `_SLICE`."""
    if not len(counts):
        return
    cuts = np.flatnonzero(np.diff(np.cumsum(counts) // _SLICE)) + 1
    edges = [0, *cuts.tolist(), len(counts)]
    for low, high in itertools.pairwise(edges):
        yield slice(low, high)


def _power_of_two(number: int) -> int:
    return 1 << max(0, number.bit_length() - 1)
