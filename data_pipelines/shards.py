"""Second pass: windows -> ArrayRecord shards of `tf.train.Example`, without TensorFlow.

A shard is written under a temporary name and renamed when it is complete, so a file with a shard's
name is a whole shard. The work unit is a slice of one source; its bytes do not depend on who
writes it.
"""

import concurrent.futures
import dataclasses
import hashlib
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.proto import tf_example_pb2

from data_pipelines.sources import Source
from data_pipelines.survey import Plan, Progress, kept_windows
from data_pipelines.windows import SPLITS, Recipe

NAME = "genome_windows"
"""TFDS name of every dataset built here."""
TEMPORARY = "part-"
"""Prefix of files that are not complete."""
# One record a chunk, or every random read would decompress its neighbours.
_WRITER_OPTIONS = "group_size:1"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One complete file."""

    file: str
    split: str
    records: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, eq=False)
class _Piece:
    """Windows of one contig: their bases, without the rest of the contig."""

    contig: str
    start: int
    """True 0-based coordinate of `bases[0]`."""
    bases: np.ndarray
    """uint8[bases]."""
    starts: np.ndarray
    """int64[windows], into `bases`."""
    codes: np.ndarray
    """int8[windows] split codes."""


def features() -> tfds.features.FeaturesDict:
    """What a record holds."""
    return tfds.features.FeaturesDict(
        {
            "sequence": tfds.features.Text(doc="Upper-case A, C, G, T and N."),
            "source": tfds.features.Text(doc="File or assembly the window comes from."),
            "contig": tfds.features.Text(doc="Contig name."),
            "start": tfds.features.Scalar(np.int64, doc="True 0-based coordinate on the contig."),
        }
    )


def parse_record(record: bytes) -> dict[str, Any]:
    """{"sequence": bytes, "source": str, "contig": str, "start": int} of one stored record.

    Raises google.protobuf.message.DecodeError or IndexError for bytes that are no such record.
    """
    values = tf_example_pb2.Example.FromString(record).features.feature
    return {
        "sequence": values["sequence"].bytes_list.value[0],
        "source": values["source"].bytes_list.value[0].decode(),
        "contig": values["contig"].bytes_list.value[0].decode(),
        "start": values["start"].int64_list.value[0],
    }


def parse_sequence(record: bytes) -> bytes:
    """Only the bases of one stored record, for the training loop."""
    return (
        tf_example_pb2.Example.FromString(record).features.feature["sequence"].bytes_list.value[0]
    )


def checksum(path: pathlib.Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_shards(
    sources: Sequence[Source],
    recipe: Recipe,
    plan: Plan,
    folder: pathlib.Path,
    workers: int,
    progress: Progress,
) -> list[Shard]:
    """Writes the shards that are missing; returns all of them in the order of the splits."""
    names = _shard_names(plan)
    shards: dict[str, Shard] = {}
    missing: set[int] = set()
    for number, unit in enumerate(plan.units):
        for code, name in names[number].items():
            shard = _finished(folder / name, SPLITS[code], unit.counts[code])
            if shard is None:
                missing.add(number)
            else:
                shards[name] = shard
    done = len(plan.units) - len(missing)
    progress(done, len(plan.units), "writing shards")
    jobs = (
        (pieces, {code: folder / name for code, name in names[number].items()}, recipe.length, src)
        for number, src, pieces in _payloads(sources, recipe, plan, missing)
    )
    for written in _run(jobs, workers):
        shards.update({shard.file: shard for shard in written})
        done += 1
        progress(done, len(plan.units), "writing shards")
    return sorted(shards.values(), key=lambda shard: (SPLITS.index(shard.split), shard.file))


def _shard_names(plan: Plan) -> list[dict[int, str]]:
    """File name of each unit's shards by split code."""
    totals = [sum(unit.counts[code] > 0 for unit in plan.units) for code in range(len(SPLITS))]
    names: list[dict[int, str]] = []
    used = [0] * len(SPLITS)
    for unit in plan.units:
        own = {}
        for code, split in enumerate(SPLITS):
            if unit.counts[code]:
                own[code] = f"{NAME}-{split}.array_record-{used[code]:05d}-of-{totals[code]:05d}"
                used[code] += 1
        names.append(own)
    return names


def _finished(path: pathlib.Path, split: str, records: int) -> Shard | None:
    if not path.exists():
        return None
    try:
        reader = ArrayRecordReader(str(path))
        found = reader.num_records()
        reader.close()
    except (ValueError, RuntimeError):
        found = -1
    if found != records:  # a power cut can leave a name without its bytes
        path.unlink()
        return None
    return Shard(path.name, split, records, path.stat().st_size, checksum(path))


def _payloads(
    sources: Sequence[Source], recipe: Recipe, plan: Plan, missing: set[int]
) -> Iterator[tuple[int, str, list[_Piece]]]:
    """(unit number, source, its pieces) of the missing units, in order."""
    by_contig: dict[int, list[tuple[int, int, int]]] = {}
    wanted: dict[int, int] = {}
    for number in sorted(missing):
        wanted[number] = len(plan.units[number].pieces)
        for i, first, end in plan.units[number].pieces:
            by_contig.setdefault(i, []).append((number, first, end))
    numbers: dict[str, list[int]] = {}
    for i, facts in enumerate(plan.contigs):
        numbers.setdefault(facts.source, []).append(i)
    for source in sources:
        own = numbers.get(source.name, [])
        if not any(i in by_contig for i in own):
            continue
        collected: list[_Piece] = []
        for i, contig in zip(own, source.read(), strict=True):
            if i not in by_contig:
                continue
            starts, codes = kept_windows(contig, plan.splits[i], recipe)
            for number, first, end in by_contig[i]:
                low, high = int(starts[first]), int(starts[end - 1]) + recipe.length
                collected.append(
                    _Piece(
                        contig.name,
                        contig.start + low,
                        contig.bases[low:high],
                        starts[first:end] - low,
                        codes[first:end],
                    )
                )
                if len(collected) == wanted[number]:
                    yield number, source.name, collected
                    collected = []


def _run(jobs: Iterator[tuple[Any, ...]], workers: int) -> Iterator[list[Shard]]:
    """Results of `_write_unit`, at most two jobs a worker waiting in memory."""
    if workers <= 1:
        for job in jobs:
            yield _write_unit(*job)
        return
    # Spawn: forking a process that has started threads (JAX, ArrayRecord) can hang it.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=die_with_parent
    ) as pool:
        waiting: set[concurrent.futures.Future[list[Shard]]] = set()
        for job in jobs:
            waiting.add(pool.submit(_write_unit, *job))
            if len(waiting) >= 2 * workers:
                done, waiting = concurrent.futures.wait(
                    waiting, return_when=concurrent.futures.FIRST_COMPLETED
                )
                yield from (future.result() for future in done)
        for future in concurrent.futures.as_completed(waiting):
            yield future.result()


def die_with_parent() -> None:
    """Ends this worker process when its parent ends; else it would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _write_unit(
    pieces: list[_Piece], paths: dict[int, pathlib.Path], length: int, source: str
) -> list[Shard]:
    """Writes one shard a split; the windows keep their order."""
    serializer = ExampleSerializer(features().get_serialized_info())
    shards = []
    for code, path in paths.items():
        temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
        writer = ArrayRecordWriter(str(temporary), _WRITER_OPTIONS)
        records = 0
        for piece in pieces:
            for start in piece.starts[piece.codes == code].tolist():
                example = serializer.get_tf_example(
                    {
                        "sequence": piece.bases[start : start + length].tobytes(),
                        "source": source.encode(),
                        "contig": piece.contig.encode(),
                        "start": piece.start + start,
                    }
                )
                # The order of a protobuf map is otherwise left to the hash of the process.
                writer.write(example.SerializeToString(deterministic=True))
                records += 1
        writer.close()
        digest, size = checksum(temporary), temporary.stat().st_size
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.rename(path)
        shards.append(Shard(path.name, SPLITS[code], records, size, digest))
    return shards
