"""Elements of a genome from its annotation: which bases are exon, intron, CDS, UTR and so on.

What a file does not say is derived from what it says, transcript by transcript:

| class | bases |
|---|---|
| exon | exon features; without any: CDS and UTRs of the transcript joined |
| intron | intron features of a transcript, and gaps of at least 10 bases between its exons |
| CDS | CDS features and stop codons (GTF leaves them out of the CDS) |
| 5'UTR, 3'UTR | features; a plain `UTR` by the side of the CDS; without any: exons beyond the CDS |
| promoter | so many bases upstream of the first base of each transcript that has a strand |
| splice donor, acceptor | 6 bases on either side of an intron's first, last border |
| intergenic | outside of every gene and transcript |

A transcript is whatever exons, CDS, UTRs or introns name as their parent, with or without a row of
its own, and every gene or RNA that nothing names. A base may be in several classes.
"""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_pipelines.annotation import Feature

CLASSES = (
    "exon", "intron", "CDS", "5'UTR", "3'UTR", "promoter", "splice donor", "splice acceptor",
    "intergenic",
)  # fmt: skip
"""The element classes, in the order of all tables and arrays."""
PROMOTER = 250
"""Bases upstream of a transcript's first that count as its promoter."""
SPLICE_REACH = 6
"""Bases on either side of an exon-intron border that count as splice site: a 6-mer each."""
SHORTEST_INTRON = 10
"""Shorter gaps between exons are frameshifts or gaps of the assembly, not introns."""

Interval = tuple[int, int]

_ROLES = {
    "exon": "exon", "pseudogenic_exon": "exon", "intron": "intron",
    "five_prime_utr_intron": "intron", "three_prime_utr_intron": "intron", "cds": "cds",
    "stop_codon": "stop", "five_prime_utr": "utr5", "5utr": "utr5", "5'utr": "utr5",
    "three_prime_utr": "utr3", "3utr": "utr3", "3'utr": "utr3", "utr": "utr",
}  # fmt: skip
_PROTEINS = {"protein", "polypeptide"}
"""TAIR's CDS name their protein as a parent, too; its span is no transcript's."""


@dataclasses.dataclass(frozen=True, eq=False)
class Elements:
    """Elements of one contig."""

    intervals: Mapping[str, np.ndarray]
    """{class: int64[n, 2]}: sorted, disjoint, not touching; 0-based, half-open."""
    notes: Mapping[str, int]
    """What was derived and what could not be used, counted."""
    unused: Mapping[str, int]
    """Features of types that say nothing of these classes, by type."""


@dataclasses.dataclass(eq=False)
class _Transcript:
    strand: str = "."
    start: int = 0
    end: int = 0
    parts: dict[str, list[Interval]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )

    def hold(self, feature: Feature) -> None:
        """Widens the span, and takes the strand of the first part that has one."""
        self.start = min(self.start, feature.start) if self.end else feature.start
        self.end = max(self.end, feature.end)
        self.strand = feature.strand if self.strand == "." else self.strand


def merged(intervals: Iterable[Interval]) -> np.ndarray:
    """int64[n, 2]: the union, sorted; what overlaps or touches is one. Empty ones are left out."""
    given = np.array(sorted(i for i in intervals if i[0] < i[1]), np.int64).reshape(-1, 2)
    if not len(given):
        return given
    reach = np.maximum.accumulate(given[:, 1])
    first = np.concatenate([[True], given[1:, 0] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.stack([given[first, 0], reach[last]], axis=1)


def complement(intervals: np.ndarray, start: int, end: int) -> np.ndarray:
    """int64[n, 2]: what of start..end no interval covers; `intervals` as `merged` gives them."""
    inside = np.clip(intervals, start, end).ravel()
    edges = np.concatenate([[start], inside, [end]]).reshape(-1, 2)
    return edges[edges[:, 0] < edges[:, 1]]


def find_elements(
    features: Sequence[Feature], start: int, end: int, promoter: int = PROMOTER
) -> Elements:
    """Elements between the coordinates `start` and `end` of the contig that `features` are of.

    `promoter` is in bases. Features that lie outside are left out and counted.
    """
    notes: collections.Counter[str] = collections.Counter()
    unused: collections.Counter[str] = collections.Counter()
    transcripts, loose, genic = _transcripts(features, notes, unused)
    found: dict[str, list[Interval]] = {name: [] for name in CLASSES}
    for role, name in (("exon", "exon"), ("cds", "CDS"), ("utr5", "5'UTR"), ("utr3", "3'UTR")):
        found[name] += loose.parts.pop(role, [])
    if not found["exon"] and not any(t.parts["exon"] or t.parts["cds"] for t in transcripts):
        found["intron"] += loose.parts.pop("intron", [])
    for role, intervals in loose.parts.items():
        notes[f"{role} features without a transcript, not used"] += len(intervals)
    for transcript in transcripts:
        genic.append((transcript.start, transcript.end))
        _add(found, transcript, promoter, notes)
    covered = merged([*genic, *found["exon"], *found["CDS"], *found["5'UTR"], *found["3'UTR"]])
    joined = {name: _clipped(merged(own), start, end) for name, own in found.items()}
    joined["intergenic"] = complement(covered, start, end)
    outside = sum(f.end <= start or f.start >= end for f in features)
    if outside:
        notes["features outside of the sequence"] = outside
    return Elements(joined, dict(+notes), dict(unused))


def _clipped(intervals: np.ndarray, start: int, end: int) -> np.ndarray:
    clipped = np.clip(intervals, start, end)
    return clipped[clipped[:, 0] < clipped[:, 1]]


def _transcripts(
    features: Sequence[Feature],
    notes: collections.Counter[str],
    unused: collections.Counter[str],
) -> tuple[list[_Transcript], _Transcript, list[Interval]]:
    """Transcripts with their parts, parts that name no transcript, and the spans of genes."""
    named: dict[str, _Transcript] = collections.defaultdict(_Transcript)
    loose = _Transcript()
    whole = []
    parents = {parent for feature in features for parent in feature.parents}
    for feature in features:
        role = _ROLES.get(feature.kind.lower())
        if role is None:
            whole.append(feature)
            continue
        for transcript in [named[parent] for parent in feature.parents] or [loose]:
            transcript.parts[role].append((feature.start, feature.end))
            transcript.hold(feature)
    alone, genic = [], []
    for feature in whole:
        if feature.kind.lower() in _PROTEINS:
            unused[feature.kind] += 1
            named.pop(feature.identity, None)
        elif feature.identity in named:
            named[feature.identity].hold(feature)
        elif not _is_genic(feature.kind):
            unused[feature.kind] += 1
        else:
            genic.append((feature.start, feature.end))
            if feature.identity not in parents:
                notes["genes and RNAs without parts, taken as transcripts of one piece"] += 1
                transcript = _Transcript()
                transcript.hold(feature)
                alone.append(transcript)
    return [*named.values(), *alone], loose, genic


def _is_genic(kind: str) -> bool:
    return kind.lower().endswith(("gene", "rna", "transcript", "gene_segment"))


def _add(
    found: dict[str, list[Interval]],
    transcript: _Transcript,
    promoter: int,
    notes: collections.Counter[str],
) -> None:
    """Adds what one transcript has to the classes."""
    parts, strand = transcript.parts, transcript.strand
    cds = merged(parts["cds"] + parts["stop"])
    utrs = parts["utr5"] + parts["utr3"] + parts["utr"]
    exons = merged(parts["exon"])
    if not len(exons) and (len(cds) or utrs):
        notes["transcripts without exon features: exons are their CDS and UTRs"] += 1
        exons = merged([*_pairs(cds), *utrs])
    found["exon"] += _pairs(exons)
    found["CDS"] += _pairs(cds)
    _add_utrs(found, transcript, exons, cds, notes)

    gaps = list(zip(exons[:-1, 1].tolist(), exons[1:, 0].tolist(), strict=True))
    introns = [gap for gap in gaps if gap[1] - gap[0] >= SHORTEST_INTRON]
    known = set(parts["intron"])
    notes["introns derived from gaps between exons"] += len(set(introns) - known)
    notes[f"gaps shorter than {SHORTEST_INTRON} bases, no introns"] += len(gaps) - len(introns)
    every = sorted(known | set(introns))
    found["intron"] += every
    if strand == ".":
        notes["transcripts without a strand: no promoter, no splice sites"] += 1
    else:
        tss = transcript.start if strand == "+" else transcript.end
        found["promoter"].append((tss - promoter, tss) if strand == "+" else (tss, tss + promoter))
        for intron in every:
            donor, acceptor = intron if strand == "+" else intron[::-1]
            found["splice donor"].append((donor - SPLICE_REACH, donor + SPLICE_REACH))
            found["splice acceptor"].append((acceptor - SPLICE_REACH, acceptor + SPLICE_REACH))


def _add_utrs(
    found: dict[str, list[Interval]],
    transcript: _Transcript,
    exons: np.ndarray,
    cds: np.ndarray,
    notes: collections.Counter[str],
) -> None:
    parts, strand = transcript.parts, transcript.strand
    sided = parts["utr5"] or parts["utr3"]
    found["5'UTR"] += parts["utr5"]
    found["3'UTR"] += parts["utr3"]
    if sided or not len(cds):
        notes["UTRs without a side: no CDS beside them"] += len(parts["utr"])
        return
    source = merged(parts["utr"]) if parts["utr"] else exons
    first, last = int(cds[0, 0]), int(cds[-1, 1])
    before = _pairs(_clipped(source, min(transcript.start, first), first))
    after = _pairs(_clipped(source, last, max(transcript.end, last)))
    if not before and not after:
        return
    if strand == ".":
        notes["UTRs without a side: no strand"] += 1
        return
    notes["transcripts whose UTRs are derived from exons or UTR features and the CDS"] += 1
    found["5'UTR"] += before if strand == "+" else after
    found["3'UTR"] += after if strand == "+" else before


def _pairs(intervals: np.ndarray) -> list[Interval]:
    return [(int(a), int(b)) for a, b in intervals]
