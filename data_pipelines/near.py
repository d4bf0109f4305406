"""Near-duplicates: what of a dataset's windows, or of labelled sequences, other windows have.

A sequence is a near-duplicate when at least half of it is at least 95 % identical to one place of
the other windows, on either strand. Two steps: `leaks` finds the window that shares most sketched
k-mers; that window, with its neighbours on the contig, is then compared by all of its k-mers
(`similarity`), which gives identity, share and place.
"""

import array
import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from google.protobuf.message import DecodeError
from jaxtyping import Int

from data_pipelines.leaks import REPEATED, Answers, Questions, Sampling, sampling
from data_pipelines.similarity import Match, best_match
from data_pipelines.stored import Stored, Window, place, spread_evenly

IDENTITY, SHARE = 0.95, 0.5
"""A near-duplicate is at least so similar, over at least this share of its bases."""
TRAIN_SAMPLE = 2_000
"""Windows of train that are looked up in train, evenly spread."""
EXAMPLES = 3
"""Pairs that are named of one kind; all are counted."""
SHOWN_CONTIGS = 5
"""Contigs that are named as having most of a labelled set."""
BINS = np.round(np.arange(0.80, 1.0001, 0.01), 2)
"""Edges of the histogram of identities; what is below the first is counted in its first bin."""
_HINT = 0.05
"""Of its sketched k-mers, a sequence must share so many with a window to be compared with it."""
_UNREADABLE = (ValueError, RuntimeError, IndexError, DecodeError)


@dataclasses.dataclass(frozen=True)
class Example:
    """A pair, for people."""

    here: str
    """Place of the window, or number of the labelled sequence."""
    there: str
    """Place of the other window that the stretch begins at."""
    strand: str
    """"+" or "-"."""
    identity: float
    """Estimated, 0..1."""
    share: float
    """Of the window or sequence."""

    def text(self) -> str:
        """One line."""
        return (
            f"{self.here} and {self.there} ({self.strand}): {self.identity:.2%} identical over "
            f"{self.share:.0%}"
        )


@dataclasses.dataclass(frozen=True)
class Near:
    """Windows of one split and what another one, or the rest of the same, has of them."""

    windows: int
    """Of the first split."""
    looked_up: int
    """Of these: all, or evenly spread."""
    near: int
    """Near-duplicates among them, identical ones included."""
    seen: int | None
    """Windows at least half of whose k-mers stand anywhere in the second; None within a split."""
    identities: tuple[int, ...]
    """Looked-up windows by the identity of their best stretch, for stretches of at least SHARE."""
    identities_of_less: tuple[int, ...]
    """The same for shorter ones; the rest of the windows has no stretch to speak of."""
    examples: tuple[Example, ...]
    """The worst."""

    @property
    def part(self) -> float:
        """Near-duplicates as a share of what was looked up."""
        return self.near / max(1, self.looked_up)


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Sequences of a labelled set."""

    task: str
    split: str
    sequences: tuple[str, ...]
    """Upper-case A, C, G, T and N."""


@dataclasses.dataclass(frozen=True)
class Overlap:
    """What the training windows have of a labelled set."""

    task: str
    split: str
    sequences: int
    looked_up: int
    """Of these: all that are long enough for a k-mer, or evenly spread."""
    exact: int
    """Contained as they are, on either strand."""
    near: int
    """Near-duplicates, those contained as they are included."""
    seen: int
    """At least half of their k-mers stand anywhere in the windows."""
    contigs: dict[str, int]
    """Contigs of the windows that have most of `near`, with how many."""
    examples: tuple[Example, ...]
    """The worst."""


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """Windows of several splits with their sketches, to be looked up."""

    questions: Questions
    splits: tuple[str, ...]
    """Those that rows are of."""
    codes: Int[np.ndarray, " R"]
    """Index into `splits` of each row."""
    numbers: Int[np.ndarray, " R"]
    """Number of each within its split."""
    sampling: Sampling

    def rows(self, split: str) -> Int[np.ndarray, " r"]:
        """Which rows are of the split."""
        return np.flatnonzero(self.codes == self.splits.index(split))


def ask_windows(stored: Stored, contigs: dict[tuple[str, str], int], length: int) -> Asked:
    """Sketches of all held-out windows, and of a sample of the training windows.

    `contigs` numbers the (source, contig) and is added to. Damaged shards are passed over.
    """
    held_out = sorted({shard["split"] for shard in stored.shards} - {"train"})
    chosen = sampling(sum(map(stored.windows, held_out)), length)
    splits = (*held_out, "train")
    columns = codes, numbers, own, starts = tuple(array.array("q") for _ in range(4))

    def batches() -> Iterator[Sequence[bytes]]:
        for split, number, window in _wanted(stored, held_out, chosen.every):
            contig = contigs.setdefault((window.source, window.contig), len(contigs))
            facts = splits.index(split), number, contig, window.start
            for column, value in zip(columns, facts, strict=True):
                column.append(value)
            yield [window.bases]

    questions = Questions.of(batches(), chosen.scale)
    questions = dataclasses.replace(
        questions, contigs=np.array(own, np.int64), starts=np.array(starts, np.int64)
    )
    return Asked(questions, splits, np.array(codes, np.int64), np.array(numbers, np.int64), chosen)


def _wanted(
    stored: Stored, held_out: Sequence[str], every: int
) -> Iterator[tuple[str, int, Window]]:
    for nth, shard in enumerate(stored.shards):
        if shard["split"] in held_out:
            first = stored.first(nth)
            for number, window in enumerate(stored.read(nth).windows, first):
                if number % every == 0:
                    yield shard["split"], number, window
    for number in spread_evenly(stored.windows("train"), TRAIN_SAMPLE).tolist():
        try:
            yield "train", number, next(stored.some("train", [number]))
        except _UNREADABLE:
            continue


def windows_near(stored: Stored, asked: Asked, answers: Answers, first: str, second: str) -> Near:
    """What `answers`, which has seen the split `second`, says of the windows of `first`."""
    rows = asked.rows(first)
    sizes = asked.questions.sizes[rows]
    near, examples = 0, []
    bins = np.zeros((2, len(BINS) - 1), int)
    for row in rows[_worth(answers.shared[rows], sizes)].tolist():
        try:
            window = next(stored.some(first, [int(asked.numbers[row])]))
            around = stored.around(second, int(answers.window[row]))
        except _UNREADABLE:
            continue
        match = best_match(window.bases, around.bases)
        if match is None:
            continue
        bins[int(match.share < SHARE), _bin(match.identity)] += 1
        if _is_near(match):
            near += 1
            examples.append(_example(window.place, around, match))
    seen = None
    if first != second:
        seen = int(np.sum(answers.found()[rows] >= SHARE))
    return Near(
        windows=stored.windows(first),
        looked_up=len(rows),
        near=near,
        seen=seen,
        identities=tuple(bins[0].tolist()),
        identities_of_less=tuple(bins[1].tolist()),
        examples=_worst(examples),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class AskedLabelled:
    """Labelled sequences with their sketches."""

    questions: Questions
    sets: tuple[Labelled, ...]
    rows: tuple[range, ...]
    """Of each set."""
    chosen: tuple[Int[np.ndarray, " n"], ...]
    """Sequences of each set that are looked up."""


def ask_labelled(sets: Sequence[Labelled]) -> AskedLabelled:
    """Sketches of the sequences of all sets, by the shortest of those that have a k-mer."""
    lengths = [len(sequence) for own in sets for sequence in own.sequences]
    short = int(np.percentile(lengths, 5)) if lengths else 0
    total = sum(lengths) // max(1, short)
    chosen_by = sampling(total, short)
    chosen = tuple(np.arange(0, len(own.sequences), chosen_by.every) for own in sets)
    ends = np.cumsum([0, *map(len, chosen)]).tolist()
    batches = (
        [own.sequences[i].encode() for i in picked.tolist()]
        for own, picked in zip(sets, chosen, strict=True)
    )
    return AskedLabelled(
        Questions.of(batches, chosen_by.scale),
        tuple(sets),
        tuple(range(low, high) for low, high in itertools.pairwise(ends)),
        chosen,
    )


def labelled_overlaps(
    stored: Stored, asked: AskedLabelled, answers: Answers
) -> tuple[Overlap, ...]:
    """What `answers`, which has seen the training windows, says of each labelled set."""
    found = answers.found()
    overlaps = []
    for own, rows, chosen in zip(asked.sets, asked.rows, asked.chosen, strict=True):
        span = slice(rows.start, rows.stop)
        sizes = asked.questions.sizes[span]
        exact, near, examples = 0, 0, []
        contigs: dict[str, int] = {}
        for nth in np.flatnonzero(_worth(answers.shared[span], sizes)).tolist():
            number = int(chosen[nth])
            try:
                around = stored.around("train", int(answers.window[rows.start + nth]))
            except _UNREADABLE:
                continue
            match = best_match(own.sequences[number].encode(), around.bases)
            if match is None or not _is_near(match):
                continue
            exact, near = exact + match.exact, near + 1
            contig = f"{around.source} {around.contig}"
            contigs[contig] = contigs.get(contig, 0) + 1
            examples.append(_example(f"sequence {number + 1}", around, match))
        ordered = sorted(contigs.items(), key=lambda item: -item[1])
        overlaps.append(
            Overlap(
                own.task,
                own.split,
                sequences=len(own.sequences),
                looked_up=int(np.sum(sizes > 0)),
                exact=exact,
                near=near,
                seen=int(np.sum(found[span][sizes > 0] >= SHARE)),
                contigs=dict(ordered[:SHOWN_CONTIGS]),
                examples=_worst(examples),
            )
        )
    return tuple(overlaps)


def repeated(length: int, stride: int) -> int:
    """Windows that a k-mer may stand in before it is a repeat: more where windows overlap."""
    return REPEATED * -(-length // stride)


def _worth(shared: Int[np.ndarray, " n"], sizes: Int[np.ndarray, " n"]) -> np.ndarray:
    """bool[n]: sequences whose best window is compared; two k-mers, or the only one."""
    return (shared > 0) & (shared >= np.minimum(2, sizes)) & (shared >= _HINT * sizes)


def _is_near(match: Match) -> bool:
    return match.identity >= IDENTITY and match.share >= SHARE


def _bin(identity: float) -> int:
    return int(np.clip(np.searchsorted(BINS, identity, side="right") - 1, 0, len(BINS) - 2))


def _example(here: str, around: Window, match: Match) -> Example:
    return Example(
        here,
        place(around.source, around.contig, around.start + match.target_start),
        "-" if match.reverse else "+",
        round(match.identity, 4),
        round(match.share, 4),
    )


def _worst(examples: Sequence[Example]) -> tuple[Example, ...]:
    return tuple(sorted(examples, key=lambda e: -e.identity * e.share)[:EXAMPLES])
