"""Labelled intervals of a reference: a small JSON file says which.

```json
{
  "intervals": "peaks.bed",
  "reference": "hg38.fa.gz",
  "length": 1000,
  "split": {"dev": ["chr8"], "test": ["chr20", "chr21"]}
}
```

`intervals` is anything a task can be, with `chrom`, `start` and `end` in place of sequences: a BED
file (the label is its name column), a CSV, TSV or Parquet, a folder with train and test, a folder
of one file a class. Paths count from the JSON file. Coordinates are 0-based and half-open, also
where a FASTA header `NAME:START-END` says that a contig is a piece; an interval on strand `-` is
read as the reverse complement. `length` (optional) is the size in bases of a window around the
middle of each interval; without it, the interval's own bases are taken. `split` (optional) gives
the chromosomes of each split; what is not named in it is training, unless it names `train`.
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

from data_pipelines.fasta import Contig, read_fasta
from nt_jax.errors import InputError, nearest
from nt_jax.evaluation.tasks.examples import SPLITS, Row, reverse_complement
from nt_jax.evaluation.tasks.layouts import Parts, read_parts

_KEYS = ("intervals", "reference", "length", "split")
MOST_N = 0.5
"""A window with a larger share of N is passed over, and counted."""


@dataclasses.dataclass(frozen=True)
class Description:
    """The content of the JSON file."""

    file: pathlib.Path
    intervals: pathlib.Path
    reference: pathlib.Path
    length: int | None
    """Bases; None takes every interval as it is."""
    split: Mapping[str, Sequence[str]]
    """Chromosomes of each split; empty where the intervals say it themselves, or nothing does."""


def read_description(path: pathlib.Path) -> Description:
    """Reads the JSON file; InputError for a missing or misspelt key or a value of a wrong kind."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no JSON ({error}); correct the file") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not an object; a task needs intervals and reference")
    for key in content:
        if key not in _KEYS:
            raise InputError(f"{path}: unknown key {key!r}{nearest(key, _KEYS)}")
    for key in _KEYS[:2]:
        if not isinstance(content.get(key), str):
            raise InputError(f"{path}: {key!r} is missing; it names a file")
    length = content.get("length")
    if length is not None and (type(length) is not int or length < 1):
        raise InputError(f"{path}: length {length!r}; give a number of bases above 0")
    split = content.get("split", {})
    if not isinstance(split, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names)
        for names in split.values()
    ):
        raise InputError(f'{path}: split is {{"test": ["chr20", ...]}}: lists of chromosomes')
    for name in split:
        if name not in SPLITS:
            raise InputError(f"{path}: unknown split {name!r}{nearest(name, SPLITS)}")
    every = [name for names in split.values() for name in names]
    for name in every:
        if every.count(name) > 1:
            raise InputError(f"{path}: split names {name!r} twice; a chromosome has one split")
    folder = path.parent
    return Description(
        path, folder / content["intervals"], folder / content["reference"], length, split
    )


def read_intervals(description: Description) -> tuple[Parts, list[str]]:
    """The intervals of each split with their sequences, and what was passed over.

    Raises InputError for an interval whose chromosome the reference lacks, or that lies beyond it.
    """
    parts, notes = read_parts(description.intervals)
    for rows in parts.values():
        for row in rows:
            if row.interval is None:
                raise row.error("a sequence, not an interval; read this file without a reference")
    if description.split:
        parts, missed = _split(description, parts)
        notes += missed
    rows = [row for held in parts.values() for row in held]
    sequences, passed = _sequences(description, rows)
    notes += [f"passed over {count:,} {what}" for what, count in passed.items() if count]
    filled: Parts = {}
    start = 0
    for split, held in parts.items():
        found = zip(held, sequences[start : start + len(held)], strict=True)
        filled[split] = [
            dataclasses.replace(row, sequence=bases) for row, bases in found if bases is not None
        ]
        start += len(held)
    return filled, notes


def _split(description: Description, parts: Parts) -> tuple[Parts, list[str]]:
    if list(parts) != ["all"]:
        raise InputError(
            f"{description.file}: split, but {description.intervals.name} is split into "
            f"{', '.join(parts)} already; drop one of the two"
        )
    rows = parts["all"]
    present = {row.interval.chrom for row in rows if row.interval}
    of = {name: split for split, names in description.split.items() for name in names}
    for name in of:
        if name not in present:
            raise InputError(
                f"{description.file}: split names {name!r}, but {description.intervals.name} has "
                f"no interval there{nearest(name, present)}"
            )
    rest = None if "train" in description.split else "train"
    held: dict[str | None, list[Row]] = collections.defaultdict(list)
    for row in rows:
        held[of.get(row.interval.chrom if row.interval else "", rest)].append(row)
    left = len(held.pop(None, []))
    notes = [f"passed over {left:,} intervals on chromosomes of no split"] if left else []
    return {split: held[split] for split in SPLITS if held[split]}, notes


def _sequences(
    description: Description, rows: Sequence[Row]
) -> tuple[list[str | None], dict[str, int]]:
    """The bases of each row, None for one passed over, and how many were and why.

    The reference is streamed; its largest contig is in memory.
    """
    waiting = collections.defaultdict(list)
    for index, row in enumerate(rows):
        assert row.interval is not None
        waiting[row.interval.chrom].append(index)
    found: dict[int, str | None] = {}
    ends: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
    passed = {"windows that reach over the end of a contig": 0, "windows of mostly N": 0}
    over, mostly_n = passed
    for contig in read_fasta(description.reference):
        ends[contig.name].append((contig.start, contig.start + len(contig.bases)))
        for index in waiting.get(contig.name, ()):
            row = rows[index]
            if not _inside(contig, row):
                continue
            bases = _window(contig, row, description.length)
            if bases is None:
                passed[over] += 1
            elif bases.count("N") > MOST_N * len(bases):
                passed[mostly_n] += 1
                bases = None
            found[index] = bases
    for index, row in enumerate(rows):
        if index not in found:
            raise _beyond(description, row, ends)
    return [found[index] for index in range(len(rows))], passed


def _inside(contig: Contig, row: Row) -> bool:
    interval = row.interval
    assert interval is not None
    return contig.start <= interval.start and interval.end <= contig.start + len(contig.bases)


def _window(contig: Contig, row: Row, length: int | None) -> str | None:
    interval = row.interval
    assert interval is not None
    start, end = interval.start, interval.end
    if length is not None:
        start = (interval.start + interval.end) // 2 - length // 2
        end = start + length
    start, end = start - contig.start, end - contig.start
    if start < 0 or end > len(contig.bases):
        return None
    bases = contig.bases[start:end].tobytes().decode()
    return reverse_complement(bases) if interval.reverse else bases


def _beyond(
    description: Description, row: Row, ends: Mapping[str, Sequence[tuple[int, int]]]
) -> InputError:
    interval = row.interval
    assert interval is not None
    reference = description.reference.name
    if interval.chrom not in ends:
        return row.error(
            f"no contig {interval.chrom!r} in {reference}{_near(interval.chrom, ends)}"
        )
    held = ", ".join(f"{start:,}-{end:,}" for start, end in ends[interval.chrom])
    return row.error(
        f"{interval.chrom}:{interval.start:,}-{interval.end:,} lies beyond {reference}, which has "
        f"{held} (0-based); is it the same assembly?"
    )


def _near(chrom: str, known: Mapping[str, object]) -> str:
    for other in (f"chr{chrom}", chrom.removeprefix("chr")):
        if other != chrom and other in known:
            return f"; it has {other!r}: use the same names"
    return nearest(chrom, known)
