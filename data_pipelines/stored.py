"""The windows of a dataset as they are stored: a shard at once, checked; or a few by number."""

import bisect
import dataclasses
import functools
import os
import pathlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from google.protobuf.message import DecodeError

from data_pipelines.datacard import has_haplotypes
from data_pipelines.records import draw_haplotype, parse_record
from data_pipelines.shards import checksum

_GOLDEN = 2_654_435_769
"""2**32 by the golden ratio: its multiples are spread evenly below 2**32."""
_OPEN = 16
"""Shards kept open at a time."""


@dataclasses.dataclass(frozen=True)
class Window:
    """One window of the reference."""

    bases: bytes
    """Upper-case A, C, G, T and N."""
    source: str
    contig: str
    start: int
    """True 0-based coordinate on the contig."""

    @property
    def place(self) -> str:
        """`SOURCE CONTIG:START`, 1-based, for people."""
        return place(self.source, self.contig, self.start)


def place(source: str, contig: str, start: int) -> str:
    """`SOURCE CONTIG:START` for people, of a 0-based coordinate."""
    return f"{source} {contig}:{start + 1}"


@dataclasses.dataclass(frozen=True)
class ShardWindows:
    """What a shard holds, and what is wrong with it."""

    windows: tuple[Window, ...]
    """In the order of the records, without those that are none."""
    problems: tuple[str, ...]
    """One line each."""


class Stored:
    """Reads a dataset by its data card. Not for several threads at once."""

    def __init__(self, folder: pathlib.Path, card: dict[str, Any]) -> None:
        self._folder = folder
        self._length: int = card["recipe"]["length"]
        self._varied = has_haplotypes(card)
        self.shards: tuple[dict[str, Any], ...] = tuple(card["shards"])
        """As the data card has them: file, split, records, sha256."""
        self._ends: dict[str, list[int]] = {}
        self._numbers: dict[str, list[int]] = {}
        for number, shard in enumerate(self.shards):
            ends = self._ends.setdefault(shard["split"], [])
            ends.append((ends[-1] if ends else 0) + shard["records"])
            self._numbers.setdefault(shard["split"], []).append(number)
        self._reader = functools.lru_cache(_OPEN)(self._opened)

    def windows(self, split: str) -> int:
        """Windows of a split, as the data card has it."""
        return self._ends.get(split, [0])[-1]

    def first(self, number: int) -> int:
        """Number, within its split, of the first window of a shard."""
        shard = self.shards[number]
        nth = self._numbers[shard["split"]].index(number)
        return self._ends[shard["split"]][nth] - shard["records"]

    def read(self, number: int) -> ShardWindows:
        """All windows of a shard, with whatever is wrong: damage, counts, letters, lengths."""
        shard = self.shards[number]
        name, path = shard["file"], self._folder / shard["file"]
        if not path.is_file():
            return ShardWindows((), (f"{name}: this shard is missing; build the dataset again",))
        if checksum(path) != shard["sha256"]:
            damaged = "damaged (its SHA-256 is not the datacard's); build the dataset again"
            return ShardWindows((), (f"{name}: {damaged}",))
        try:
            reader = ArrayRecordReader(os.fspath(path))
            records = reader.read_all()
            reader.close()
        except (ValueError, RuntimeError, IndexError) as error:
            reason = str(error).splitlines()[0]
            return ShardWindows((), (f"{name}: cannot be read: {reason}",))
        problems = []
        if len(records) != shard["records"]:
            problems.append(f"{name}: {len(records)} records, the datacard has {shard['records']}")
        windows = []
        for nth, record in enumerate(records):
            where = f"{name}: record {nth}"
            try:
                window = Window(*_fields(record))
            except (DecodeError, IndexError, UnicodeDecodeError):
                problems.append(f"{where} is no window")
                continue
            windows.append(window)
            problems += self._window_problems(window, where)
            if self._varied:
                problems += self._haplotype_problems(record, where, nth)
        return ShardWindows(tuple(windows), tuple(problems))

    def some(self, split: str, numbers: Sequence[int]) -> Iterator[Window]:
        """Windows of a split by their numbers; fast where neighbours stand together.

        Raises ValueError, RuntimeError, IndexError or DecodeError where a shard is damaged.
        """
        for number in numbers:
            nth = bisect.bisect_right(self._ends[split], number)
            shard = self._numbers[split][nth]
            first = self._ends[split][nth] - self.shards[shard]["records"]
            yield Window(*_fields(self._reader(shard).read([number - first])[0]))

    def around(self, split: str, number: int) -> Window:
        """A window with those before and after it, where they touch or overlap it on the contig."""
        first, end = max(0, number - 1), min(self.windows(split), number + 2)
        near = list(self.some(split, range(first, end)))
        joined = own = near[number - first]
        for other in near[number - first + 1 :]:
            joined = _joined(joined, other)
        if number > first:
            before = _joined(near[0], own)
            if before is not near[0]:
                joined = _joined(near[0], joined)
        return joined

    def _opened(self, number: int) -> ArrayRecordReader:
        return ArrayRecordReader(os.fspath(self._folder / self.shards[number]["file"]))

    def _window_problems(self, window: Window, where: str) -> list[str]:
        found = []
        strange = window.bases.translate(None, b"ACGTN")
        if strange:
            found.append(f"{where} has the letter {chr(strange[0])!r}")
        if len(window.bases) != self._length:
            found.append(f"{where} has {len(window.bases)} bases, not {self._length}")
        return found

    def _haplotype_problems(self, record: bytes, where: str, number: int) -> list[str]:
        """What is wrong with one haplotype of a record, another one for each number."""
        try:
            bases = draw_haplotype(record, number * _GOLDEN % 2**32).bases
        except (IndexError, ValueError, struct.error):
            return [f"{where} has alleles that cannot be read"]
        if len(bases) != self._length:
            return [f"{where} has a haplotype of {len(bases)} bases, not {self._length}"]
        strange = bases.translate(None, b"ACGTN")
        return [f"{where} has a haplotype of other letters"] if strange else []


def _fields(record: bytes) -> tuple[bytes, str, str, int]:
    window = parse_record(record)
    return window["sequence"], window["source"], window["contig"], window["start"]


def _joined(first: Window, second: Window) -> Window:
    """`first`, longer by `second` where that goes on from it; else `first` itself."""
    if (first.source, first.contig) != (second.source, second.contig):
        return first
    known = first.start + len(first.bases) - second.start
    if not (first.start < second.start and 0 <= known < len(second.bases)):
        return first
    return dataclasses.replace(first, bases=first.bases + second.bases[known:])


def spread_evenly(total: int, most: int) -> np.ndarray:
    """int64[n]: numbers of at most `most` of `total` things, evenly spaced, in order."""
    count = min(total, most)
    return np.unique(np.linspace(0, max(0, total - 1), count).round().astype(np.int64))
