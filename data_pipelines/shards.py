"""Second pass: windows -> ArrayRecord shards of `tf.train.Example`, without TensorFlow.

A shard is written under a temporary name and renamed when it is complete, so a file with a shard's
name is a whole shard. The work unit is a slice of one source; its bytes do not depend on who
writes it.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from data_pipelines.contigs import StagedContig, map_bases
from data_pipelines.haplotypes import Alleles, pack, stretches
from data_pipelines.records import NAME, features
from data_pipelines.staged import Staged, open_arrays
from data_pipelines.survey import Plan, Unit
from data_pipelines.windows import SPLITS, Recipe
from data_pipelines.workers import TEMPORARY, Progress, Spread

# One record a chunk, or every random read would decompress its neighbours. Of bases, zstd's lowest
# level makes fewer bytes than its default, in two thirds of the time of a build.
_WRITER_OPTIONS = "group_size:1,zstd:1"


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
    """Windows of one contig, and where their bases and alleles lie on disk."""

    contig: StagedContig
    starts: np.ndarray
    """int64[windows], into the contig."""
    codes: np.ndarray
    """int8[windows] split codes."""
    alleles: pathlib.Path | None
    """Folder of the contig's alleles; None where it has none."""
    haplotypes: int | None
    """Of the source; None in a dataset without haplotypes."""


def checksum(path: pathlib.Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_shards(
    recipe: Recipe,
    plan: Plan,
    staged: Mapping[str, Staged],
    folder: pathlib.Path,
    spread: Spread,
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
        (
            _pieces(plan, plan.units[number], recipe.length, staged),
            {code: folder / name for code, name in names[number].items()},
            recipe.length,
        )
        for number in sorted(missing)
    )
    for written in spread(_write_unit, jobs):
        shards.update({shard.file: shard for shard in written})
        done += 1
        progress(done, len(plan.units), "writing shards")
    return sorted(shards.values(), key=lambda shard: (SPLITS.index(shard.split), shard.file))


def _pieces(plan: Plan, unit: Unit, length: int, staged: Mapping[str, Staged]) -> list[_Piece]:
    pieces = []
    for number, first, end in unit.pieces:
        contig = plan.contigs[number]
        starts, codes = plan.kept(number, length)
        own = staged.get(contig.source)
        pieces.append(
            _Piece(
                contig,
                starts[first:end],
                codes[first:end],
                None if own is None else own.contigs.get(contig.name),
                None if own is None else own.haplotypes,
            )
        )
    return pieces


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


def _write_unit(pieces: list[_Piece], paths: dict[int, pathlib.Path], length: int) -> list[Shard]:
    """Writes one shard a split; the windows keep their order."""
    varied = any(piece.haplotypes is not None for piece in pieces)
    serializer = ExampleSerializer(features(varied).get_serialized_info())
    mapped = map_bases(pieces[0].contig.folder)
    shards = []
    for code, path in paths.items():
        temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
        try:
            records = _write_records(temporary, code, pieces, mapped, serializer, length)
        except RuntimeError as error:  # how ArrayRecord says that the disk is full
            raise OSError(" ".join(str(error).split())) from None
        digest, size = checksum(temporary), temporary.stat().st_size
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.rename(path)
        shards.append(Shard(path.name, SPLITS[code], records, size, digest))
    return shards


def _write_records(
    path: pathlib.Path,
    code: int,
    pieces: Sequence[_Piece],
    mapped: np.ndarray,
    serializer: ExampleSerializer,
    length: int,
) -> int:
    """Writes the windows of one split; returns how many these are."""
    writer = ArrayRecordWriter(str(path), _WRITER_OPTIONS)
    records = 0
    for piece in pieces:
        numbers = np.flatnonzero(piece.codes == code).tolist()
        if not numbers:
            continue
        source, contig = piece.contig.source.encode(), piece.contig.name.encode()
        bases = piece.contig.bases(mapped)
        # Here, and not for all pieces at once: the alleles of a contig are open files.
        fields = _further(piece, bases, length)
        for number in numbers:
            start = int(piece.starts[number])
            example = serializer.get_tf_example(
                {
                    "sequence": bases[start : start + length].tobytes(),
                    "source": source,
                    "contig": contig,
                    "start": piece.contig.start + start,
                    **fields(number),
                }
            )
            # The order of a protobuf map is otherwise left to the hash of the process.
            writer.write(example.SerializeToString(deterministic=True))
            records += 1
    writer.close()
    return records


def _further(piece: _Piece, bases: np.ndarray, length: int) -> Callable[[int], dict[str, bytes]]:
    """What the record of a window of the piece has beside its reference."""
    if piece.haplotypes is None:
        return lambda number: {}
    many, origin = piece.haplotypes, piece.contig.start
    alleles = Alleles.of([], many) if piece.alleles is None else open_arrays(piece.alleles)
    extent = (origin, origin + len(bases))
    cuts = stretches(alleles, origin + piece.starts, length, extent)

    def fields(number: int) -> dict[str, bytes]:
        low, high, first, end = (int(column[number]) for column in cuts)
        start = int(piece.starts[number])
        return {
            "before": bases[low - origin : start].tobytes(),
            "after": bases[start + length : high - origin].tobytes(),
            "alleles": pack(alleles, first, end, low, many) if many else b"",
        }

    return fields
