"""Labelled pieces of a genome for the element probe: 5'UTR, CDS, intron, 3'UTR, intergenic.

A piece is a run of bases that are in exactly one of the five classes (a base that is intron of one
transcript and CDS of another is in none); of a long run its middle. Pieces of one block of the
genome belong to one group, and a piece's window lies wholly within its block, so that no base that
the model reads is in two groups.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from data_pipelines.elements import merged
from nt_jax.evaluation.elements.windows import Genome
from nt_jax.evaluation.tasks import Fold
from nt_jax.evaluation.tasks.folds import splits

CLASSES = ("5'UTR", "CDS", "intron", "3'UTR", "intergenic")
"""The classes of the paper's element probe."""
SHORTEST, LONGEST = 30, 300
"""Bases of a piece."""
BLOCK_WINDOWS = 10
"""Windows of a block."""


class Piece(NamedTuple):
    """One example; coordinates are 0-based in the contig's bases as they are in memory."""

    label: int
    """Index into CLASSES."""
    contig: int
    """Index into the genome's contigs."""
    start: int
    end: int
    run: int
    """Bases of the whole run that the piece is the middle of."""
    window: tuple[int, int]
    """What the model reads: centred on the piece, within the contig."""
    block: int
    """Number of the block within the contig."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pieces:
    """The examples and what was left out."""

    pieces: tuple[Piece, ...]
    short: int
    """Runs shorter than SHORTEST."""
    crossing: int
    """Pieces whose window reaches into another block."""
    unknown: int
    """Pieces with an N in their window."""

    @property
    def labels(self) -> Int[np.ndarray, " N"]:
        """Indices into CLASSES."""
        return np.array([piece.label for piece in self.pieces], np.int64)

    @property
    def blocks(self) -> list[str]:
        """Name of the block that each piece lies in."""
        return [f"{piece.contig}:{piece.block}" for piece in self.pieces]

    @property
    def groups(self) -> Int[np.ndarray, " N"]:
        """Number of that block, from 0."""
        return np.unique(self.blocks, return_inverse=True)[1].astype(np.int64)


def pure_runs(intervals: Sequence[Int[np.ndarray, "_ 2"]]) -> list[Int[np.ndarray, "_ 2"]]:
    """For each class the runs of bases that are in it and in no other of them.

    `intervals` are sorted and disjoint within each class, as the results are.
    """
    edges = np.unique(np.concatenate([own.ravel() for own in intervals]))
    inside = np.stack([_member(own, edges[:-1]) for own in intervals])
    alone = inside & (inside.sum(axis=0) == 1)
    # Between two neighbouring edges nothing changes, so their first base speaks for all.
    return [merged(zip(edges[:-1][row], edges[1:][row], strict=True)) for row in alone]


def _member(
    own: Int[np.ndarray, "_ 2"], positions: Int[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    if not len(own):
        return np.zeros(len(positions), bool)
    before = np.searchsorted(own[:, 0], positions, side="right") - 1
    return (before >= 0) & (positions < own[np.maximum(before, 0), 1])


def find_pieces(genome: Genome, window: int, most: int, seed: int) -> Pieces:
    """At most `most` pieces of each class (0: all), drawn with `seed`; `window` is in bases."""
    found: list[Piece] = []
    short = crossing = unknown = 0
    block = BLOCK_WINDOWS * window
    for index, (contig, elements) in enumerate(zip(genome.contigs, genome.elements, strict=True)):
        size = len(contig.bases)
        runs = pure_runs([elements.intervals[name] for name in CLASSES])
        for label, own in enumerate(runs):
            for first, last in (own - contig.start).tolist():
                run = last - first
                if run < SHORTEST:
                    short += 1
                    continue
                start = first + max(0, (run - LONGEST) // 2)
                end = min(start + LONGEST, last)
                left = max(0, min((start + end - window) // 2, size - window))
                right = min(left + window, size)
                if (contig.bases[left:right] == ord("N")).any():
                    unknown += 1
                    continue
                if left // block != (right - 1) // block:
                    crossing += 1
                    continue
                found.append(Piece(label, index, start, end, run, (left, right), left // block))
    rng = np.random.default_rng(seed)
    chosen: list[Piece] = []
    for label in range(len(CLASSES)):
        one = [piece for piece in found if piece.label == label]
        if most and len(one) > most:
            one = [one[i] for i in np.sort(rng.choice(len(one), most, replace=False))]
        chosen += one
    return Pieces(tuple(chosen), short, crossing, unknown)


def group_folds(pieces: Pieces, folds: int, seed: int) -> list[Fold] | str:
    """Stratified folds that never split a block; or, in words, why there can be none."""
    labels, groups = pieces.labels, pieces.groups
    for label, name in enumerate(CLASSES):
        blocks = len(np.unique(groups[labels == label]))
        if blocks < folds:
            return (
                f"{name} occurs in {blocks} of the genome's blocks, and {folds} folds need {folds}"
            )
    made = splits("classes", labels, pieces.blocks, folds, seed)
    for fold in made:
        missing = set(range(len(CLASSES))) - set(labels[fold.train].tolist())
        if missing:
            names = ", ".join(CLASSES[label] for label in sorted(missing))
            return f"a fold would train without {names}: too few blocks of the genome have it"
    return made
