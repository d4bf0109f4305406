"""Labelled sequences and phased variants for the simulated genome. NumPy only.

Promoters and splice sites are read in the direction of transcription; their background and the
coding task come from either strand. All sequences of a split come from its own chromosomes, so that
nothing learned by heart in training helps in the test.
"""

import bisect
import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from data_pipelines.simulated_genome import CHROMOSOMES, UPSTREAM, Chromosome, Span

_NAMES = tuple(CHROMOSOMES)
SPLITS = {"train": _NAMES[:-2], "dev": _NAMES[-2:-1], "test": _NAMES[-1:]}
"""Split -> chromosomes."""
REGIONS = ("intergenic", "repeat", "promoter", "intron", "utr", "cds", "tata_box", "splice_site")
"""Region classes of a base, in the order in which later ones overwrite earlier ones."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A classification task and how long its sequences are."""

    name: str
    labels: tuple[str, ...]
    """Class names by label number."""
    length: int
    """Bases of each sequence."""


PROMOTERS = Task("promoters", ("background", "promoter"), UPSTREAM + 50)
SPLICE_SITES = Task("splice_sites", ("other", "acceptor", "donor"), 200)
CODING = Task("coding", ("non_coding", "coding"), 60)
TASKS = (PROMOTERS, SPLICE_SITES, CODING)
LABEL_LIMIT = 2_000
"""Most sequences of one label in one split."""

Row = tuple[str, int]


def region_map(chromosome: Chromosome) -> np.ndarray:
    """uint8[n]: index into REGIONS of each base."""
    regions = np.zeros(chromosome.bases.size, np.uint8)

    def mark(name: str, spans: Sequence[Span]) -> None:
        for start, end in spans:
            regions[start:end] = REGIONS.index(name)

    mark("repeat", [repeat.span for repeat in chromosome.repeats])
    for gene in chromosome.genes:
        mark("promoter", [gene.promoter])
        mark("utr", gene.exons)
        mark("cds", gene.cds)
        mark("intron", gene.introns)
        mark("tata_box", [gene.tata_box] if gene.tata_box else [])
        for start, end in gene.introns:
            mark("splice_site", [(start, start + 2), (end - 2, end)])
    return regions


def make_tasks(chromosomes: Sequence[Chromosome], seed: int) -> dict[Task, dict[str, list[Row]]]:
    """Task -> split -> shuffled rows (sequence, label), the same number of rows for each label.

    A sequence stands in one split only; copies in dev and test of what an earlier split has are
    dropped before the classes are balanced.
    """
    makers = {PROMOTERS: _promoters, SPLICE_SITES: _splice_sites, CODING: _coding}
    made: dict[Task, dict[str, list[Row]]] = {}
    for task, maker in makers.items():
        seen: set[str] = set()
        made[task] = {}
        for split, names in SPLITS.items():
            rng = np.random.default_rng([seed, 100 + TASKS.index(task), list(SPLITS).index(split)])
            rows = []
            for chromosome in (c for c in chromosomes if c.name in names):
                for sequence, label in maker(chromosome, task, rng):
                    if sequence not in seen:
                        seen.add(sequence)
                        rows.append((sequence, label))
            made[task][split] = _balanced(rows, len(task.labels), rng)
    return made


def _balanced(rows: list[Row], labels: int, rng: np.random.Generator) -> list[Row]:
    classes = [_shuffled([row for row in rows if row[1] == label], rng) for label in range(labels)]
    smallest = min(LABEL_LIMIT, *map(len, classes))
    return _shuffled([row for kept in classes for row in kept[:smallest]], rng)


def _shuffled(rows: list, rng: np.random.Generator) -> list:
    # Sorting random numbers stays the same over NumPy versions; Generator.permutation does not.
    return [rows[i] for i in np.argsort(rng.random(len(rows)), kind="stable")]


_COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")


def _read(chromosome: Chromosome, start: int, end: int, strand: str) -> str:
    piece = chromosome.bases[start:end].tobytes()
    return (piece if strand == "+" else piece.translate(_COMPLEMENT)[::-1]).decode()


def _random_strand(rng: np.random.Generator) -> str:
    return "+" if rng.random() < 0.5 else "-"


def _promoters(chromosome: Chromosome, task: Task, rng: np.random.Generator) -> Iterator[Row]:
    """UPSTREAM bases and 50 of the transcript, each with background of the nearest GC content."""
    positives = []
    for gene in chromosome.genes:
        site, inside = gene.start_site, task.length - UPSTREAM
        if gene.strand == "+":
            start, end = site - UPSTREAM, site + inside
        else:
            start, end = site + 1 - inside, site + 1 + UPSTREAM
        positives.append(_read(chromosome, start, end, gene.strand))
    regions = region_map(chromosome)
    allowed = np.isin(regions, [REGIONS.index(r) for r in ("intergenic", "repeat", "intron")])
    allowed &= chromosome.bases != ord("N")
    pool = sorted(
        (_gc(text), text)
        for start, end in _tiles(allowed, task.length)
        for text in [_read(chromosome, start, end, _random_strand(rng))]
    )
    for text in positives:
        yield text, 1
        if pool:
            at = bisect.bisect_left(pool, (_gc(text), ""))
            near = [i for i in (at - 1, at) if 0 <= i < len(pool)]
            best = min(near, key=lambda i: abs(pool[i][0] - _gc(text)))
            yield pool.pop(best)[1], 0


def _gc(text: str) -> float:
    return (text.count("G") + text.count("C")) / len(text)


def _tiles(allowed: np.ndarray, length: int) -> Iterator[Span]:
    """Windows side by side in which every base is allowed."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], allowed.astype(np.int8), [0]))))
    for start, end in edges.reshape(-1, 2).tolist():
        for at in range(start, end - length + 1, length):
            yield at, at + length


def _splice_sites(chromosome: Chromosome, task: Task, rng: np.random.Generator) -> Iterator[Row]:
    """Windows with the junction in the middle; `other` has a GT or AG of the same genes there."""
    half = task.length // 2

    def window(gene_strand: str, boundary: int) -> Span | None:
        """Forward span around the boundary before forward base `boundary`."""
        span = boundary - half, boundary + half
        inside = span[0] >= 0 and span[1] <= chromosome.bases.size
        has_n = inside and (chromosome.bases[span[0] : span[1]] == ord("N")).any()
        return span if inside and not has_n else None

    for gene in chromosome.genes:
        forward = gene.strand == "+"
        donors = [span[0] if forward else span[1] for span in gene.introns]
        acceptors = [span[1] if forward else span[0] for span in gene.introns]
        start, end = gene.transcript
        text = _read(chromosome, start, end, gene.strand)
        decoys = []
        for motif, true, behind in (("GT", donors, 0), ("AG", acceptors, 2)):
            found = [i + behind for i in range(len(text) - 1) if text[i : i + 2] == motif]
            boundaries = [start + i if forward else end - i for i in found]
            decoys.append([b for b in boundaries if b not in true])
        picks = [
            kind[int(rng.random() * len(kind))]
            for _ in gene.introns
            for kind in [decoys[rng.random() < 0.5]]
            if kind
        ]
        for label, sites in ((2, donors), (1, acceptors), (0, picks)):
            for boundary in sites:
                span = window(gene.strand, boundary)
                if span:
                    yield _read(chromosome, *span, gene.strand), label


def _coding(chromosome: Chromosome, task: Task, rng: np.random.Generator) -> Iterator[Row]:
    """Windows within a coding exon, and windows with no coding base and no N; either strand."""
    for gene in chromosome.genes:
        for start, end in gene.cds:
            spare = (end - start) % task.length
            first = start + int(rng.random() * (spare + 1))
            for at in range(first, end - task.length + 1, task.length):
                yield _read(chromosome, at, at + task.length, _random_strand(rng)), 1
    regions = region_map(chromosome)
    allowed = (regions != REGIONS.index("cds")) & (chromosome.bases != ord("N"))
    for start, end in _tiles(allowed, task.length):
        yield _read(chromosome, start, end, _random_strand(rng)), 0


@dataclasses.dataclass(frozen=True)
class Variant:
    """One biallelic variant with phased genotypes."""

    position: int
    """0-based position of the first REF base."""
    ref: str
    alt: str
    region: str
    """Class of the first base that changes, one of REGIONS."""
    genotypes: np.ndarray
    """uint8[samples, 2], 0 or 1."""


VARIANT_SPACING = 140
"""Mean distance in bases between proposed variants."""
INDEL_SHARE = 0.15
CONSTRAINED = ("cds", "tata_box", "splice_site")
CONSTRAINED_KEPT = 0.3
"""Share of the proposed variants that selection leaves in constrained regions."""
_FOUNDERS = 12
_SWITCH = 1 / 100


def make_variants(chromosome: Chromosome, samples: int, seed: int) -> Iterator[Variant]:
    """Variants in the order of their position; every one is carried by somebody.

    SNVs and left-aligned indels of 1-6 bases, REF with the base in front. Each haplotype is a
    mosaic of founder haplotypes, so that neighbours are in linkage disequilibrium.
    """
    rng = np.random.default_rng([seed, 200 + _NAMES.index(chromosome.name)])
    text = chromosome.bases.tobytes().decode()
    regions = region_map(chromosome)
    founders = (rng.random((samples, 2)) * _FOUNDERS).astype(int)
    position = 20
    while (position := position + 12 + int(-VARIANT_SPACING * math.log(1 - rng.random()))) < (
        len(text) - 20
    ):
        switch = rng.random((samples, 2)) < _SWITCH
        founders = np.where(switch, (rng.random((samples, 2)) * _FOUNDERS).astype(int), founders)
        frequency = 0.02 * 30 ** rng.random()  # log-uniform: most variants are rare
        genotypes = (rng.random(_FOUNDERS) < frequency)[founders].astype(np.uint8)
        ref, alt = _alleles(text, position, rng)
        region = REGIONS[regions[position + (len(ref) != len(alt))]]
        removed = region in CONSTRAINED and rng.random() > CONSTRAINED_KEPT
        if removed or "N" in ref or not genotypes.any():
            continue
        yield Variant(position, ref, alt, region, genotypes)


def _alleles(text: str, position: int, rng: np.random.Generator) -> tuple[str, str]:
    """REF and ALT at a position. An indel whose last base repeats its anchor could move left."""
    anchor = text[position]

    def other(base: str) -> str:
        return [letter for letter in "ACGT" if letter != base][int(3 * rng.random())]

    size = 1 + int(6 * rng.random() ** 2)
    kind = rng.random()
    if kind < INDEL_SHARE / 2:
        return anchor, anchor + "".join("ACGT"[int(4 * r)] for r in rng.random(size - 1)) + other(
            anchor
        )
    deleted = text[position + 1 : position + 1 + size]
    if kind < INDEL_SHARE and deleted[-1] != anchor:
        return anchor + deleted, anchor
    return anchor, other(anchor)
