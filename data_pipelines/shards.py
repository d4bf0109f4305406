"""Second pass: windows -> ArrayRecord shards of `tf.train.Example`, without TensorFlow.

A shard is written under a temporary name and renamed when it is complete, so a file with a shard's
name is a whole shard. The work unit is a slice of one source; its bytes do not depend on who
writes it.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from data_pipelines.fasta import Contig
from data_pipelines.haplotypes import Alleles, Stretches, pack, stretches
from data_pipelines.records import NAME, features
from data_pipelines.sources import Source
from data_pipelines.staged import Staged, open_arrays
from data_pipelines.survey import Plan, Progress, kept_windows
from data_pipelines.windows import SPLITS, Recipe
from data_pipelines.workers import TEMPORARY, spread

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
    variation: "_Variation | None"
    """For sources with genotypes."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Variation:
    """The alleles of a piece's windows."""

    folder: pathlib.Path | None
    """Where the contig's alleles are staged; None where it has none."""
    haplotypes: int
    """Of the source."""
    stretches: Stretches
    """What of the contig each window needs; coordinates are true ones."""


def checksum(path: pathlib.Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_shards(
    sources: Sequence[Source],
    recipe: Recipe,
    plan: Plan,
    staged: Mapping[str, Staged],
    folder: pathlib.Path,
    workers: int,
    progress: Progress,
) -> list[Shard]:
    """Writes the shards that are missing; returns all of them in the order of the splits.

    `staged` has the alleles of each source; it is empty for a dataset without haplotypes.
    """
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
        for number, src, pieces in _payloads(sources, recipe, plan, staged, missing)
    )
    for written in spread(_write_unit, jobs, workers):
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
    sources: Sequence[Source],
    recipe: Recipe,
    plan: Plan,
    staged: Mapping[str, Staged],
    missing: set[int],
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
                variation = None
                if staged:
                    own_alleles = staged[source.name]
                    variation = _variation(own_alleles, contig, starts[first:end], recipe.length)
                    low = int(variation.stretches.start.min()) - contig.start
                    high = int(variation.stretches.end.max()) - contig.start
                collected.append(
                    _Piece(
                        contig.name,
                        contig.start + low,
                        contig.bases[low:high],
                        starts[first:end] - low,
                        codes[first:end],
                        variation,
                    )
                )
                if len(collected) == wanted[number]:
                    yield number, source.name, collected
                    collected = []


def _variation(staged: Staged, contig: Contig, starts: np.ndarray, length: int) -> _Variation:
    extent = (contig.start, contig.start + len(contig.bases))
    cuts = stretches(staged.alleles(contig.name), contig.start + starts, length, extent)
    return _Variation(staged.contigs.get(contig.name), staged.haplotypes, cuts)


def _write_unit(
    pieces: list[_Piece], paths: dict[int, pathlib.Path], length: int, source: str
) -> list[Shard]:
    """Writes one shard a split; the windows keep their order."""
    varied = any(piece.variation is not None for piece in pieces)
    serializer = ExampleSerializer(features(varied).get_serialized_info())
    further = [_further(piece, length) for piece in pieces]
    shards = []
    for code, path in paths.items():
        temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
        writer = ArrayRecordWriter(str(temporary), _WRITER_OPTIONS)
        records = 0
        for piece, fields in zip(pieces, further, strict=True):
            for number in np.flatnonzero(piece.codes == code).tolist():
                start = int(piece.starts[number])
                example = serializer.get_tf_example(
                    {
                        "sequence": piece.bases[start : start + length].tobytes(),
                        "source": source.encode(),
                        "contig": piece.contig.encode(),
                        "start": piece.start + start,
                        **fields(number),
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


def _further(piece: _Piece, length: int) -> Callable[[int], dict[str, bytes]]:
    """What the record of a window of the piece has beside its reference."""
    variation = piece.variation
    if variation is None:
        return lambda number: {}
    many = variation.haplotypes
    nobody = Alleles.of([], many)
    alleles = nobody if variation.folder is None else open_arrays(variation.folder)

    def fields(number: int) -> dict[str, bytes]:
        low, high, first, end = (int(column[number]) for column in variation.stretches)
        start = int(piece.starts[number])
        return {
            "before": piece.bases[low - piece.start : start].tobytes(),
            "after": piece.bases[start + length : high - piece.start].tobytes(),
            "alleles": pack(alleles, first, end, low, many) if many else b"",
        }

    return fields
