"""Reads annotation: GFF3, GTF and BED, plain, gzip or BGZF. Coordinates become 0-based, half-open.

GFF3 and GTF count from 1 and include the end, BED counts from 0 and does not. The format is told
from the first record, never from the file's name. A `##FASTA` line, or a
sequence's `>`, ends a GFF. A BED of 12 columns holds gene models (blocks are exons, the thick part
is coding); in a shorter one the fourth column names the type of element, and a stranded row of
another name is a transcript.
"""

import collections
import dataclasses
import os
import pathlib
import re
import urllib.parse
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from data_pipelines.compressed import opened
from nt_jax.errors import InputError

_WANTED = "GFF3, GTF or BED"
_EMPTY = "features of no bases (the end is before the start), not used"
_GTF_ATTRIBUTE = re.compile(r'\b(gene_id|transcript_id)\s+"?([^";]*)"?')
_PREFIX = re.compile(r"chr(?=.)", re.IGNORECASE)
_BED_TYPES = {
    "exon", "intron", "cds", "utr", "five_prime_utr", "three_prime_utr", "5utr", "3utr", "5'utr",
    "3'utr", "gene", "transcript", "mrna",
}  # fmt: skip


class Feature(NamedTuple):
    """One row of an annotation (of a BED of 12 columns: one part of it)."""

    kind: str
    """Type as it stands in the file; of a plain BED row `transcript` or its name."""
    start: int
    """0-based."""
    end: int
    """Exclusive."""
    strand: str
    """`+`, `-`, or `.` where the file says nothing."""
    identity: str
    """GFF3: ID. GTF: transcript_id of a transcript, gene_id of a gene. Else empty."""
    parents: tuple[str, ...]
    """Identities of what it is a part of."""


@dataclasses.dataclass(frozen=True, eq=False)
class Annotation:
    """What was read of a file."""

    path: pathlib.Path
    """The file."""
    form: str
    """`GFF3`, `GTF` or `BED`."""
    features: Mapping[str, Sequence[Feature]]
    """Features of the contigs that were asked for, under the names that the file has."""
    contigs: Mapping[str, int]
    """Rows of every contig of the file."""
    kinds: Mapping[str, int]
    """Rows of every type in the file."""
    notes: Mapping[str, int]
    """What was read in a way that the reader should know of."""


class _Row(NamedTuple):
    contig: str
    kind: str
    features: list[Feature]
    note: str = ""


def bare(contig: str) -> str:
    """The name without a leading `chr` (any case): what chr21 and 21 have in common."""
    return _PREFIX.sub("", contig, count=1) if _PREFIX.match(contig) else contig


def read_annotation(
    path: str | os.PathLike[str], contigs: Collection[str] | None = None
) -> Annotation:
    """Reads a file; keeps the features of `contigs` (None: all) and counts the others.

    A name counts as asked for with and without its leading `chr`; `match_contigs` decides which
    it is. Raises InputError, with file and line, for a line that is no record of the format.
    """
    path = pathlib.Path(path)
    wanted = None if contigs is None else {bare(name) for name in contigs}
    features: dict[str, list[Feature]] = {}
    seen: collections.Counter[str] = collections.Counter()
    kinds: collections.Counter[str] = collections.Counter()
    notes: collections.Counter[str] = collections.Counter()
    form = ""
    parse: Callable[[list[str], int], _Row] = _gff3
    with opened(path, _WANTED) as stream:
        for number, columns in _records(stream):
            try:
                if not form:
                    form, parse = _detect(columns)
                row = parse(columns, number)
            except ValueError as error:
                raise InputError(f"{path}: line {number}: {error}") from None
            seen[row.contig] += 1
            kinds[row.kind] += 1
            if row.note:
                notes[row.note] += 1
            if wanted is None or bare(row.contig) in wanted:
                kept = [feature for feature in row.features if feature.start < feature.end]
                features.setdefault(row.contig, []).extend(kept)
                notes[_EMPTY] += len(kept) < len(row.features)
    if not form:
        raise InputError(f"{path}: holds no feature; give a {_WANTED} file")
    return Annotation(path, form, features, dict(seen), dict(kinds), dict(+notes))


def match_contigs(
    path: str | os.PathLike[str], wanted: Iterable[str], found: Collection[str]
) -> tuple[dict[str, str], list[str]]:
    """Which contig of the annotation belongs to each wanted one, and what had to be assumed.

    The very name comes first. Where no name is the very same, `chr` in front of one of them is
    overlooked (any case), if that leaves one candidate only; the second result says so in words.
    A wanted contig without any is left out of the first. Raises InputError when none is matched
    or one has two candidates; `path` names the annotation.
    """
    wanted = list(dict.fromkeys(wanted))
    candidates: dict[str, list[str]] = {}
    for name in found:
        candidates.setdefault(bare(name).lower(), []).append(name)
    pairs, assumed = {}, []
    for name in wanted:
        close = [name] if name in found else candidates.get(bare(name).lower(), [])
        if len(close) > 1:
            raise InputError(
                f"{path}: the sequence {name} may be {' or '.join(sorted(close))} of the "
                "annotation; give both files the same names"
            )
        if close:
            pairs[name] = close[0]
            if close[0] != name:
                assumed.append(f"{name} of the sequences is read as {close[0]} of the annotation")
    if not pairs:
        raise InputError(
            f"{path}: no contig has the name of a sequence, not even without 'chr': the annotation "
            f"has {_some(found)}; the sequences are {_some(wanted)}; rename one of them"
        )
    return pairs, assumed


def _some(names: Collection[str], most: int = 5) -> str:
    ordered = list(names)
    return ", ".join(ordered[:most]) + (", ..." if len(ordered) > most else "")


def _records(stream: Iterable[bytes]) -> Iterator[tuple[int, list[str]]]:
    """(line number, columns) of the rows up to embedded sequences."""
    for number, raw in enumerate(stream, 1):
        if raw.startswith((b"##FASTA", b">")):
            return
        if raw.startswith((b"#", b"track", b"browser")) or not raw.strip():
            continue
        yield number, raw.rstrip(b"\r\n").decode("utf-8", "replace").split("\t")


def _detect(columns: list[str]) -> tuple[str, Callable[[list[str], int], _Row]]:
    if len(columns) >= 3 and columns[1].isdecimal() and columns[2].isdecimal():
        return "BED", _bed
    if len(columns) != 9:
        spaces = "; columns are parted by tabs, not by spaces" if len(columns) == 1 else ""
        raise ValueError(
            f"{len(columns)} columns: neither GFF3 or GTF (9) nor BED (3 to 12, the second and "
            f"third whole numbers){spaces}"
        )
    if _GTF_ATTRIBUTE.search(columns[8]) and "=" not in columns[8].split('"')[0]:
        return "GTF", _gtf
    return "GFF3", _gff3


def _span(columns: list[str]) -> tuple[int, int, str]:
    """Start, end and strand of a GFF row, 0-based and half-open."""
    if len(columns) != 9:
        raise ValueError(f"{len(columns)} columns, not the 9 of GFF")
    first, last, strand = columns[3], columns[4], columns[6]
    if not columns[0] or not columns[2]:
        raise ValueError("no contig or no type")
    if not (first.isdecimal() and last.isdecimal()):
        raise ValueError(f"start {first!r} and end {last!r} must be whole numbers")
    # An end right before the start is how some files write a feature of no bases.
    if not 1 <= int(first) <= int(last) + 1:
        raise ValueError(f"start {first} and end {last}: GFF counts from 1, and start <= end")
    return int(first) - 1, int(last), _strand(strand)


def _strand(text: str) -> str:
    if text not in ("+", "-", ".", "?"):
        raise ValueError(f"strand {text!r} is none of + - . ?")
    return "." if text == "?" else text


def _gff3(columns: list[str], number: int) -> _Row:
    start, end, strand = _span(columns)
    identity = ""
    parents: tuple[str, ...] = ()
    for part in columns[8].split(";"):
        name, equals, value = part.strip().partition("=")
        if equals and name == "ID":
            identity = urllib.parse.unquote(value)
        elif equals and name == "Parent":
            parents = tuple(urllib.parse.unquote(parent) for parent in value.split(","))
    feature = Feature(columns[2], start, end, strand, identity, parents)
    return _Row(urllib.parse.unquote(columns[0]), columns[2], [feature])


def _gtf(columns: list[str], number: int) -> _Row:
    start, end, strand = _span(columns)
    kind, ids = columns[2], dict(_GTF_ATTRIBUTE.findall(columns[8]))
    gene, transcript = ids.get("gene_id", ""), ids.get("transcript_id", "")
    identity = ""
    parents: tuple[str, ...] = ()
    if kind == "gene":
        identity = gene
    elif not transcript:
        raise ValueError(f"{kind} without a transcript_id")
    elif kind == "transcript":
        identity = transcript
        parents = (gene,) if gene and gene != transcript else ()
    else:
        parents = (transcript,)
    return _Row(columns[0], kind, [Feature(kind, start, end, strand, identity, parents)])


def _bed(columns: list[str], number: int) -> _Row:
    if not 3 <= len(columns) <= 12:
        raise ValueError(f"{len(columns)} columns; BED has 3 to 12")
    if not (columns[1].isdecimal() and columns[2].isdecimal()):
        raise ValueError(f"start {columns[1]!r} and end {columns[2]!r} must be whole numbers")
    start, end = int(columns[1]), int(columns[2])
    if start >= end:
        raise ValueError(f"start {start} is not below end {end}; BED counts from 0")
    strand = _strand(columns[5]) if len(columns) > 5 else "."
    if len(columns) == 12:
        note = "rows of 12 columns read as transcripts with their exons and coding part"
        return _Row(columns[0], "transcript", _blocks(columns, number, start, end, strand), note)
    name = columns[3] if len(columns) > 3 else ""
    if name.lower() in _BED_TYPES or strand == ".":
        kind = name or "unnamed"
        return _Row(columns[0], kind, [Feature(kind, start, end, strand, "", ())])
    feature = Feature("transcript", start, end, strand, "", ())
    return _Row(columns[0], "transcript", [feature], "rows with a strand read as transcripts")


def _blocks(columns: list[str], number: int, start: int, end: int, strand: str) -> list[Feature]:
    """A transcript, its exons and its coding parts, from the 12 columns."""
    try:
        thick_start, thick_end, count = int(columns[6]), int(columns[7]), int(columns[9])
        sizes, offsets = (
            [int(value) for value in columns[i].rstrip(",").split(",")] for i in (10, 11)
        )
    except ValueError:
        raise ValueError("columns 7, 8, 10, 11 and 12 must be whole numbers") from None
    exons = [(start + o, start + o + s) for o, s in zip(offsets, sizes, strict=False)]
    if not (len(sizes) == len(offsets) == count) or min(sizes) < 1:
        raise ValueError(f"{count} blocks, but {len(sizes)} sizes and {len(offsets)} starts")
    if exons[0][0] != start or exons[-1][1] != end:
        raise ValueError("the blocks do not reach from start to end")
    # Names come twice, as where a transcript maps to two places: lines do not.
    name = f"line {number}"
    coding = [(max(a, thick_start), min(b, thick_end)) for a, b in exons]
    return [
        Feature("transcript", start, end, strand, name, ()),
        *(Feature("exon", a, b, strand, "", (name,)) for a, b in exons),
        *(Feature("CDS", a, b, strand, "", (name,)) for a, b in coding if a < b),
    ]
