"""Phased genotypes of a VCF or BCF file -> alleles with their carriers, contig by contig.

The file is streamed once, so it needs no index, and a record's genotypes are forgotten as soon as
its carriers are known. What cannot be put into a sequence is skipped and counted.
"""

import collections
import dataclasses
import enum
import heapq
import os
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines.annotation import bare
from data_pipelines.fasta import Contig
from data_pipelines.haplotypes import Allele, trim
from data_pipelines.sites import Site, samples_of, sites
from nt_jax.errors import InputError, nearest

LONGEST = 1000
"""Bases of the longest REF or ALT that is applied."""
_BASES = frozenset("ACGT")


class Skipped(enum.StrEnum):
    """Why something of the file is in no haplotype."""

    ABSENT = "contig_absent"
    """Records of a contig that the reference does not have."""
    OUTSIDE = "outside_of_contig"
    """Records beyond the ends of the contig, or of the piece of it that the reference has."""
    MISMATCH = "ref_mismatch"
    """Records whose REF is not what the reference has."""
    SYMBOLIC = "symbolic"
    """Alleles such as `<DEL>`, `*` and breakends."""
    UNKNOWN = "unknown_base"
    """Alleles with N or another ambiguous letter in REF or ALT."""
    LONG = "too_long"
    """Alleles longer than the limit."""
    RARE = "too_rare"
    """Alleles that fewer of the chosen haplotypes carry than asked for; nobody's, too."""
    SAME = "no_change"
    """Alleles whose ALT is their REF."""
    CONFLICT = "conflict"
    """Carriers left out: the haplotype has a change at the same bases further left."""


@dataclasses.dataclass
class Counts:
    """What was read from a file; complete once all of it has been read."""

    records: int = 0
    alleles: int = 0
    """Alleles that haplotypes carry."""
    carriers: int = 0
    """Their carriers, all alleles together."""
    missing: int = 0
    """Genotypes (of one haplotype) that are missing: read as the reference."""
    unphased: int = 0
    """Heterozygous genotypes that are not phased: read in the order in which they are written."""
    skipped: collections.Counter[Skipped] = dataclasses.field(default_factory=collections.Counter)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**vars(self), "skipped": {str(key): n for key, n in self.skipped.items()}}


@dataclasses.dataclass(frozen=True)
class Panel:
    """A file of genotypes and what is taken of it."""

    path: pathlib.Path
    samples: tuple[str, ...]
    """Chosen samples in the order of the file; two haplotypes each."""
    min_count: int = 1
    """Haplotypes that must carry an allele."""
    longest: int = LONGEST
    """Bases of the longest REF or ALT that is applied."""
    skip_mismatches: bool = False
    """Records whose REF contradicts the reference are skipped and counted, instead of an error."""

    @property
    def haplotypes(self) -> int:
        """Twice the samples."""
        return 2 * len(self.samples)


def open_panel(
    path: str | os.PathLike[str],
    samples: Collection[str] | None = None,
    exclude: Collection[str] = (),
    *,
    min_count: int = 1,
    longest: int = LONGEST,
    skip_mismatches: bool = False,
) -> Panel:
    """The panel of a file with the samples that are wanted.

    Args:
        path: VCF, plain or compressed, or BCF.
        samples: wanted ones; None is all.
        exclude: those left out of them.
        min_count: as in `Panel`, as are the next two.
        longest: bases.
        skip_mismatches: instead of an error.

    Raises InputError when the file is no VCF, has no genotypes, or lacks a sample that is named.
    """
    path = pathlib.Path(path)
    there = samples_of(path)
    if not there:
        raise InputError(f"{path}: no samples in it; give a file with phased genotypes")
    for name in (*(samples or ()), *exclude):
        if name not in there:
            raise InputError(
                f"{path}: none of its {len(there):,} samples is named {name}{nearest(name, there)}"
            )
    chosen = [s for s in there if (samples is None or s in samples) and s not in exclude]
    if not chosen:
        raise InputError(f"{path}: no sample is left; exclude fewer")
    return Panel(path, tuple(chosen), min_count, longest, skip_mismatches)


class Reference:
    """Contigs by name, those of one name at a time in memory."""

    def __init__(self, names: Collection[str], read: Callable[[], Iterable[Contig]]) -> None:
        self.names = frozenset(names)
        self._read = read
        self._held: tuple[str, list[Contig]] = ("", [])

    def pieces(self, name: str) -> list[Contig]:
        """The contig, or the pieces of it that there are; empty when there is none."""
        if name not in self.names:
            return []
        if self._held[0] != name:
            self._held = ("", [])
            self._held = (name, self._found(name))
        return self._held[1]

    def _found(self, name: str) -> list[Contig]:
        # Pieces of one contig may stand apart from one another: the whole file is looked through.
        return [contig for contig in self._read() if contig.name == name]


def read_alleles(
    panel: Panel, reference: Reference, counts: Counts
) -> Iterator[tuple[str, Allele]]:
    """Alleles by contig, sorted by start, such that no haplotype carries two that conflict.

    Where two changes of a haplotype touch the same bases, or insert at the same place, the one that
    starts further left holds, of those that start together the one that comes first in the file.
    What both alleles of a record begin or end with is no change, so a deletion and an SNV at its
    anchor base do not conflict.

    Args:
        panel: file and samples.
        reference: what the alleles are changes of.
        counts: gets what was read and skipped.

    Raises InputError for a file that is not sorted, has another ploidy than 1 or 2, is damaged, has
    no contig of the reference, or contradicts it.
    """
    waiting: list[tuple[int, int, int, Allele]] = []
    free = _Free(panel.haplotypes)
    order = 0
    contig: str | None = None
    matched = False
    for site in sites(panel.path, panel.samples):
        counts.records += 1
        if site.contig != contig:
            yield from _settled(waiting, None, contig, free, counts)
            contig, free = site.contig, _Free(panel.haplotypes)
        if site.contig not in reference.names:
            _refuse_other_name(panel.path, site.contig, reference.names)
            counts.skipped[Skipped.ABSENT] += 1
            continue
        matched = True
        if not _agrees(panel, site, reference.pieces(site.contig), counts):
            continue
        yield from _settled(waiting, site.start, contig, free, counts)
        for allele in _alleles(panel, site, counts):
            order += 1
            # An insertion stands in front of the base of its start.
            key = (allele.start, min(allele.length, 1), order)
            heapq.heappush(waiting, (*key, allele))
    yield from _settled(waiting, None, contig, free, counts)
    if counts.records and not matched:
        raise InputError(
            f"{panel.path}: none of its contigs is in the reference ({_some(reference.names)}); "
            "give the reference it was called on"
        )


class _Free:
    """Where each haplotype's next change may start."""

    def __init__(self, haplotypes: int) -> None:
        self.base = np.full(haplotypes, -1, np.int64)
        """Behind the last base that is replaced."""
        self.inserted = np.full(haplotypes, -1, np.int64)
        """Base in front of which was inserted last."""

    def take(self, allele: Allele) -> np.ndarray:
        """The carriers that can have the allele; they have it from now on."""
        possible = self.base[allele.carriers] <= allele.start
        if not allele.length:
            possible &= self.inserted[allele.carriers] != allele.start
        mine = allele.carriers[possible]
        self.base[mine] = allele.end
        if not allele.length:
            self.inserted[mine] = allele.start
        return mine


def _settled(
    waiting: list[tuple[int, int, int, Allele]],
    start: int | None,
    contig: str | None,
    free: _Free,
    counts: Counts,
) -> Iterator[tuple[str, Allele]]:
    """The waiting alleles left of `start`: no later record can come in front of them."""
    while waiting and (start is None or waiting[0][0] < start):
        *_, allele = heapq.heappop(waiting)
        mine = free.take(allele)
        if len(mine) < len(allele.carriers):
            counts.skipped[Skipped.CONFLICT] += len(allele.carriers) - len(mine)
        if len(mine):
            counts.alleles += 1
            counts.carriers += len(mine)
            assert contig is not None
            yield contig, allele._replace(carriers=mine)


def _agrees(panel: Panel, site: Site, pieces: Sequence[Contig], counts: Counts) -> bool:
    """Whether REF is what the reference has there."""
    for contig in pieces:
        first = site.start - contig.start
        if first >= 0 and first + len(site.ref) <= len(contig.bases):
            break
    else:
        counts.skipped[Skipped.OUTSIDE] += 1
        return False
    there = contig.bases[first : first + len(site.ref)].tobytes().decode()
    if there == site.ref or all(b in (a, "N") for a, b in zip(site.ref, there, strict=True)):
        return True
    if panel.skip_mismatches:
        counts.skipped[Skipped.MISMATCH] += 1
        return False
    raise InputError(
        f"{panel.path}: record {site.number}, {site.contig}:{site.start + 1}: REF is "
        f"{site.ref[:20]}, the reference has {there[:20]}; give the reference it was called on, "
        "or --skip-ref-mismatches"
    )


def _alleles(panel: Panel, site: Site, counts: Counts) -> Iterator[Allele]:
    """The alleles of a record that can be applied, with all their carriers."""
    calls = site.genotypes[:, :-1]
    if calls.shape[1] == 1:
        calls = np.repeat(calls, 2, axis=1)
    first, second = calls[:, 0], calls[:, 1]
    counts.missing += int(np.count_nonzero(calls == -1))
    unphased = (site.genotypes[:, -1] == 0) & (first != second) & (second != -2)
    counts.unphased += int(np.count_nonzero(unphased))
    # One call only, as of a male's X: both haplotypes are that one.
    flat = np.where(calls == -2, first[:, None], calls).reshape(-1)
    for number, alt in enumerate(site.alts, 1):
        carriers = np.flatnonzero(flat == number)
        reason = _unusable(panel, site.ref, alt, len(carriers))
        if reason is not None:
            counts.skipped[reason] += 1
            continue
        start, ref, new = trim(site.start, site.ref, alt)
        yield Allele(start, len(ref), new.encode(), carriers)


def _unusable(panel: Panel, ref: str, alt: str, carriers: int) -> Skipped | None:
    if alt in (".", "*") or not alt.isalpha():
        return Skipped.SYMBOLIC
    if not _BASES.issuperset(ref) or not _BASES.issuperset(alt):
        return Skipped.UNKNOWN
    if max(len(ref), len(alt)) > panel.longest:
        return Skipped.LONG
    if carriers < max(1, panel.min_count):
        return Skipped.RARE
    return Skipped.SAME if ref == alt else None


def _refuse_other_name(path: pathlib.Path, name: str, known: Collection[str]) -> None:
    """Raises InputError when the reference has the contig with or without `chr`."""
    for other in known:
        if bare(other).lower() == bare(name).lower():
            raise InputError(
                f"{path}: its contig {name} is {other} in the reference; rename one of them "
                "(bcftools annotate --rename-chrs)"
            )


def _some(names: Collection[str], most: int = 5) -> str:
    return ", ".join(sorted(names)[:most]) + (", ..." if len(names) > most else "")
