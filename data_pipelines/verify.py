"""Checks a dataset on disk: bytes, counts, alphabet, duplicates and leakage between the splits."""

import collections
import dataclasses
import hashlib
import itertools
import os
import pathlib
import struct
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from google.protobuf.message import DecodeError

from data_pipelines.builders import has_haplotypes, read_datacard
from data_pipelines.records import draw_haplotype, parse_record
from data_pipelines.shards import checksum

_GOLDEN = 2_654_435_769
"""2**32 by the golden ratio: its multiples are spread evenly below 2**32."""
_SHOWN = 3
"""Examples of one kind of problem that are named; all are counted."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found; plain values only."""

    path: str
    """Folder of the dataset."""
    kind: str
    """"real" or "simulated", as the datacard says."""
    shards: int
    """Shards read without damage."""
    windows: dict[str, int]
    """Windows read, by split."""
    n_share: dict[str, float]
    """Share of N among the bases, by split."""
    duplicates: dict[str, int]
    """Windows whose bases an earlier window of the same split has, by split."""
    shared: dict[str, int]
    """Windows of the first split whose bases a window of the second has, by `first/second`."""
    overlapping: dict[str, int]
    """Windows of the first split that overlap one of the second on its contig."""
    problems: tuple[str, ...]
    """One line each; empty when the dataset is as it should be."""


@dataclasses.dataclass
class _Split:
    """What is kept of the windows of one split while reading."""

    digests: list[bytes] = dataclasses.field(default_factory=list)
    places: list[tuple[str, str, int]] = dataclasses.field(default_factory=list)
    n: int = 0
    bases: int = 0


def verify(path: str | os.PathLike[str]) -> Report:
    """Reads every shard of the dataset in a folder.

    Damage, counts that differ from the datacard, letters other than ACGTN, and windows that two
    splits share are problems. Duplicates within a split are only counted: genomes have repeats.

    Raises InputError when the folder holds no complete dataset.
    """
    folder = pathlib.Path(path)
    card = read_datacard(folder)
    splits: dict[str, _Split] = collections.defaultdict(_Split)
    problems: list[str] = []
    good = 0
    for shard in card["shards"]:
        length, varied = card["recipe"]["length"], has_haplotypes(card)
        found = _read_shard(folder / shard["file"], shard, length, varied, splits)
        good += not found
        problems += found[:_SHOWN]
        if len(found) > _SHOWN:
            problems.append(f"{shard['file']}: {len(found) - _SHOWN} more problems of this shard")
    named = {shard["file"] for shard in card["shards"]}
    problems += [
        f"{extra.name}: a shard that the datacard does not know; build the dataset again"
        for extra in sorted(folder.glob("*.array_record*"))
        if extra.name not in named
    ]
    windows = {name: len(splits[name].digests) for name in card["splits"]}
    for name, count in windows.items():
        if count != card["splits"][name]:
            problems.append(
                f"{name}: {count} windows read, the datacard has {card['splits'][name]}"
            )
    shared, overlapping = {}, {}
    for first, second in itertools.combinations(reversed(list(card["splits"])), 2):
        pair = f"{first}/{second}"
        shared[pair], lines = _shared(splits[first], splits[second], pair)
        problems += lines
        length = card["recipe"]["length"]
        overlapping[pair], lines = _overlapping(splits[first], splits[second], length, pair)
        problems += lines
    return Report(
        path=os.fspath(path),
        kind=card["kind"],
        shards=good,
        windows=windows,
        n_share={name: round(s.n / max(1, s.bases), 6) for name, s in splits.items()},
        duplicates={name: len(s.digests) - len(set(s.digests)) for name, s in splits.items()},
        shared=shared,
        overlapping=overlapping,
        problems=tuple(problems),
    )


def _read_shard(
    path: pathlib.Path,
    shard: dict[str, Any],
    length: int,
    varied: bool,
    splits: dict[str, _Split],
) -> list[str]:
    """Adds the shard's windows to its split; returns what is wrong with it."""
    name = shard["file"]
    if not path.is_file():
        return [f"{name}: this shard is missing; build the dataset again"]
    if checksum(path) != shard["sha256"]:
        return [f"{name}: damaged (its SHA-256 is not the datacard's); build the dataset again"]
    try:
        reader = ArrayRecordReader(os.fspath(path))
        records = reader.read_all()
        reader.close()
    except (ValueError, RuntimeError, IndexError) as error:
        return [f"{name}: cannot be read: {str(error).splitlines()[0]}"]
    found = []
    if len(records) != shard["records"]:
        found.append(f"{name}: {len(records)} records, the datacard has {shard['records']}")
    split = splits[shard["split"]]
    for number, record in enumerate(records):
        try:
            window = parse_record(record)
        except (DecodeError, IndexError, UnicodeDecodeError):
            found.append(f"{name}: record {number} is no window")
            continue
        if varied:
            found += _haplotype_problems(record, f"{name}: record {number}", length, number)
        bases = window["sequence"]
        strange = bases.translate(None, b"ACGTN")
        if strange:
            found.append(f"{name}: record {number} has the letter {chr(strange[0])!r}")
        if len(bases) != length:
            found.append(f"{name}: record {number} has {len(bases)} bases, not {length}")
        split.digests.append(hashlib.blake2b(bases, digest_size=16).digest())
        split.places.append((window["source"], window["contig"], window["start"]))
        split.n += bases.count(b"N")
        split.bases += len(bases)
    return found


def _haplotype_problems(record: bytes, place: str, length: int, number: int) -> list[str]:
    """What is wrong with one haplotype of a record, another one for each number."""
    try:
        bases = draw_haplotype(record, number * _GOLDEN % 2**32).bases
    except (IndexError, ValueError, struct.error):
        return [f"{place} has alleles that cannot be read"]
    if len(bases) != length:
        return [f"{place} has a haplotype of {len(bases)} bases, not {length}"]
    return [f"{place} has a haplotype of other letters"] if bases.translate(None, b"ACGTN") else []


def _shared(first: _Split, second: _Split, pair: str) -> tuple[int, list[str]]:
    """(windows of `first` that `second` has too, the problem in words)."""
    others = dict(zip(second.digests, second.places, strict=True))
    hits = [i for i, digest in enumerate(first.digests) if digest in others]
    if not hits:
        return 0, []
    here, there = first.places[hits[0]], others[first.digests[hits[0]]]
    return len(hits), [
        f"{pair}: {len(hits)} windows have the same bases in both splits (leakage), such as "
        f"{_place(here)} and {_place(there)}; hold both out with --validation"
    ]


def _overlapping(first: _Split, second: _Split, length: int, pair: str) -> tuple[int, list[str]]:
    """(windows of `first` that overlap one of `second`, the problem in words)."""
    starts: dict[tuple[str, str], list[int]] = collections.defaultdict(list)
    for source, contig, start in second.places:
        starts[source, contig].append(start)
    ordered = {key: np.sort(np.array(own)) for key, own in starts.items()}
    hits = []
    for source, contig, start in first.places:
        own = ordered.get((source, contig))
        if own is not None:
            low, high = np.searchsorted(own, [start - length + 1, start + length])
            if high > low:
                hits.append((source, contig, start))
    if not hits:
        return 0, []
    return len(hits), [
        f"{pair}: {len(hits)} windows overlap one of the other split (leakage), such as "
        f"{_place(hits[0])}; build the dataset again"
    ]


def _place(place: tuple[str, str, int]) -> str:
    source, contig, start = place
    return f"{source} {contig}:{start + 1}"
