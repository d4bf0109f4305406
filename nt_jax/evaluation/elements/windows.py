"""An annotated genome as windows of tokens that know how much of them is in which element class.

Windows lie side by side, as `nt-jax evaluate --fasta` cuts them. B batch, T tokens, C classes.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from data_pipelines import windows as plans
from data_pipelines.annotation import match_contigs, read_annotation
from data_pipelines.elements import CLASSES, Elements, find_elements
from data_pipelines.fasta import Contig, read_fasta
from nt_jax.data import spread
from nt_jax.errors import InputError, nearest
from nt_jax.evaluation.elements.labels import base_labels, rotated, token_fractions
from nt_jax.tokenizers import KmerTokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Genome:
    """Contigs with their elements, and what is to be said about how they were read."""

    contigs: tuple[Contig, ...]
    """Contigs (or pieces of them) that the annotation knows."""
    elements: tuple[Elements, ...]
    """Of each contig, in its true coordinates."""
    notes: tuple[str, ...]
    """Lines for people: names matched, things derived, left out or not used."""


def read_genome(
    fasta: str | pathlib.Path,
    annotation: str | pathlib.Path,
    contigs: Sequence[str] = (),
    promoter: int = 250,
) -> Genome:
    """Reads both files and finds the elements of `contigs` (default: all that both files have).

    Raises InputError for a bad file, an unknown contig, and files that do not belong together.
    """
    pieces = list(_chosen(fasta, contigs))
    notes = []
    read = read_annotation(annotation, {piece.name for piece in pieces})
    names, assumed = match_contigs(annotation, [piece.name for piece in pieces], read.contigs)
    notes += assumed
    notes += [f"{count:,} {what}" for what, count in read.notes.items()]
    kept = [piece for piece in pieces if piece.name in names]
    left = [piece.name for piece in pieces if piece.name not in names]
    if left:
        notes.append(f"contigs without annotation, left out: {', '.join(left)}")
    found = []
    derived: collections.Counter[str] = collections.Counter()
    unused: collections.Counter[str] = collections.Counter()
    for piece in kept:
        features = read.features.get(names[piece.name], ())
        end = piece.start + len(piece.bases)
        inside = [f for f in features if f.end > piece.start and f.start < end]
        # A piece with coordinates of its own is meant to lie within more annotation; the others
        # are whole, and what lies beyond their ends belongs to another assembly.
        if piece.start == 0 and len(inside) < len(features):
            derived["features beyond the end of their contig, not used: is it the same assembly?"] \
                += len(features) - len(inside)  # fmt: skip
        elements = find_elements(inside, piece.start, end, promoter)
        derived.update(elements.notes)
        unused.update(elements.unused)
        found.append(elements)
    notes += [f"{count:,} {what}" for what, count in derived.items()]
    if unused:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in unused.most_common())
        notes.append(f"features of types that name no element, not used: {kinds}")
    if not any(len(own) for e in found for name, own in e.intervals.items() if name != CLASSES[-1]):
        raise InputError(f"{annotation}: no element of it lies on the sequences of {fasta}")
    return Genome(tuple(kept), tuple(found), tuple(notes))


def _chosen(fasta: str | pathlib.Path, contigs: Sequence[str]) -> Iterator[Contig]:
    known = set()
    for contig in read_fasta(fasta):
        known.add(contig.name)
        if not contigs or contig.name in contigs:
            yield contig
    for name in contigs:
        if name not in known:
            shown = ", ".join(sorted(known)[:5]) + (", ..." if len(known) > 5 else "")
            raise InputError(
                f"--contig {name}: {fasta} has no such contig{nearest(name, known)}; "
                f"there are {shown}"
            )


class Batch(NamedTuple):
    """Some windows; the last batch is filled up with copies that are not valid."""

    tokens: Int[np.ndarray, "B T"]
    fractions: Float[np.ndarray, "B C T"]
    """Share of each token that is in each class."""
    turned: Float[np.ndarray, "B C T"]
    """The same, turned round within each window (`labels.rotated`)."""
    number: Int[np.ndarray, " B"]
    """Window number among all windows of the chosen contigs: the key of its mask."""
    valid: Bool[np.ndarray, " B"]


@dataclasses.dataclass(frozen=True, eq=False)
class ElementWindows:
    """Windows of a genome, evenly spread; only one batch of them is in memory."""

    genome: Genome
    tokenizer: KmerTokenizer
    length: int
    """Tokens of a window, `<cls>` included."""
    starts: tuple[Int[np.ndarray, " _"], ...]
    """First bases of the windows of each contig."""
    chosen: Int[np.ndarray, " W"]
    """Numbers of the windows that are read, ascending."""
    dropped: int
    """Windows left out because more than half of their bases are N."""

    @property
    def bases(self) -> int:
        """Bases that a window is cut from."""
        return (self.length - 1) * self.tokenizer.k

    def batches(self, rows: int, seed: int) -> Iterator[Batch]:
        """All windows, `rows` at a time; `seed` is that of the turned annotation."""
        for first in range(0, len(self.chosen), rows):
            wanted = first + np.arange(rows)
            numbers = self.chosen[np.minimum(wanted, len(self.chosen) - 1)]
            read = [self._window(int(number), seed) for number in numbers]
            tokens, fractions, turned = (np.stack(part) for part in zip(*read, strict=True))
            yield Batch(tokens, fractions, turned, numbers, wanted < len(self.chosen))

    def _window(
        self, number: int, seed: int
    ) -> tuple[Int[np.ndarray, " T"], Float[np.ndarray, "C T"], Float[np.ndarray, "C T"]]:
        ends = np.cumsum([len(own) for own in self.starts])
        index = int(np.searchsorted(ends, number, side="right"))
        contig, elements = self.genome.contigs[index], self.genome.elements[index]
        start = int(self.starts[index][number - ends[index]])
        tokens = self.tokenizer.encode_prefix(contig.bases[start : start + self.bases], self.length)
        covered = self.tokenizer.bases(tokens)
        true = contig.start + start
        intervals = [elements.intervals[name] for name in CLASSES]
        fractions = token_fractions(base_labels(intervals, true, true + self.bases), covered)
        return tokens, fractions, rotated(fractions, covered, seed, number)


def element_windows(
    genome: Genome, tokenizer: KmerTokenizer, length: int, limit: int = 0
) -> ElementWindows:
    """Windows of `length` tokens side by side; `limit` of them evenly spread, 0 is all.

    Raises InputError when no contig is long enough.
    """
    bases = (length - 1) * tokenizer.k
    recipe = plans.recipe(f"window={bases},stride={bases},jitter=0")
    found = [plans.full_windows(contig.bases, recipe) for contig in genome.contigs]
    total = sum(len(starts) for starts, _ in found)
    if not total:
        longest = max(len(contig.bases) for contig in genome.contigs)
        raise InputError(
            f"no window of {bases} bases is left: the longest contig has {longest}, and windows "
            "that are more than half N are left out; choose a smaller --length"
        )
    return ElementWindows(
        genome,
        tokenizer,
        length,
        tuple(starts for starts, _ in found),
        spread(total, limit),
        sum(dropped for _, dropped in found),
    )


def shares(windows: ElementWindows) -> Mapping[str, tuple[int, float]]:
    """{class: (bases, share)} over the contigs, whether their windows are read or not."""
    total = sum(len(contig.bases) for contig in windows.genome.contigs)
    sizes = {
        name: sum(int(np.diff(e.intervals[name]).sum()) for e in windows.genome.elements)
        for name in CLASSES
    }
    return {name: (size, size / total) for name, size in sizes.items()}
