"""Damaged FASTA files through the reader, the window plan and the build, and what has to hold.

The parser of this file is naive on purpose and shares nothing with data_pipelines.fasta.
"""

import dataclasses
import json
import pathlib
import random
import re
import shutil
import string

from array_record.python.array_record_module import ArrayRecordReader

from data_pipelines.builders import build
from data_pipelines.contigs import map_bases, stage_contigs
from data_pipelines.fasta import Contig, read_fasta
from data_pipelines.records import parse_record
from data_pipelines.sources import fasta_sources
from data_pipelines.survey import Plan, survey
from data_pipelines.windows import Recipe, recipe
from data_pipelines.workers import processes
from fuzzing.containers import Malformed, inflated
from fuzzing.mutants import Mutant
from nt_jax.errors import InputError

BUILDS = 100
"""One mutant of so many goes through the whole build and is read back from disk."""
_IUPAC = "RYSWKMBDHV"


@dataclasses.dataclass(frozen=True)
class Naive:
    """A record as the naive parser reads it."""

    name: str
    start: int
    bases: str
    lower: int
    uracil: int
    iupac: int


def parse(text: bytes) -> list[Naive]:
    """The records of FASTA text. Raises Malformed for what is none."""
    records: list[tuple[str, list[str]]] = []
    for line in text.decode("latin-1").split("\n"):
        if line.startswith(">"):
            records.append((line[1:], []))
        elif records:
            records[-1][1].append(line)
        elif line.strip(" \t\r"):
            raise Malformed("text in front of the first record")
    if not records:
        raise Malformed("no record")
    return [_record(header.encode("latin-1"), "".join(lines)) for header, lines in records]


def _record(header: bytes, body: str) -> Naive:
    words = header.decode("utf-8", "replace").split()
    if not words:
        raise Malformed("no name")
    raw = re.sub("[ \t\r]", "", body)
    if not raw:
        raise Malformed("no bases")
    if set(raw.upper()) - set("ACGTUN" + _IUPAC):
        raise Malformed("letters")
    name, start = words[0], 0
    region = re.fullmatch("(.+):([0-9]+)-([0-9]+)", name)
    if region and max(len(region[2]), len(region[3])) > 18:
        raise Malformed("giant coordinates")
    if region:
        name, start = region[1], int(region[2]) - 1
        if start < 0 or int(region[3]) - start != len(raw):
            raise Malformed("region")
    bases = raw.upper()
    uracil = bases.count("U")
    codes = sum(bases.count(code) for code in _IUPAC)
    lower = sum(raw.count(letter) for letter in string.ascii_lowercase)
    bases = re.sub(f"[{_IUPAC}]", "N", bases.replace("U", "T"))
    return Naive(name, start, bases, lower, uracil, codes)


def check(mutant: Mutant, rng: random.Random, folder: pathlib.Path) -> str:
    """ "accepted" or "refused".

    Raises AssertionError where something was lost or misread, and lets pass any other exception
    than the clear error.
    """
    path = folder / "mutant.fa"
    path.write_bytes(mutant.data)
    cutting = drawn_recipe(rng)
    wanted = rng.random() < 1 / BUILDS
    try:
        naive: list[Naive] | None = parse(inflated(mutant.data))
    except Malformed:
        naive = None
    try:
        contigs = list(read_fasta(path))
        assert naive is not None, "read, though it is malformed"
        same_contigs(contigs, naive)
        staging = path.parent / "staged"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        plan = survey(
            stage_contigs(
                fasta_sources([path]), cutting, staging, processes(1), lambda *news: None
            ),
            cutting,
            by_source={},
            validation=(),
            test=(),
            seed=mutant.number,
            validation_share=0.2,
            shard_windows=16,
        )
        windows = planned(plan, cutting)
        whole_plan(contigs, naive, plan, windows, cutting)
        if wanted:
            _build(path, naive, windows, cutting, mutant.number)
    except InputError as error:
        one_line(error, path)
        return "refused"
    return "accepted"


def one_line(error: InputError, path: pathlib.Path) -> None:
    """The message is one printable line that names the file."""
    text = str(error)
    assert len(text.splitlines()) == 1, f"not one line: {text[:200]!r}"
    assert path.name in text or path.stem in text, f"no file in the message: {text[:200]!r}"
    assert len(text) < 1000, f"{len(text)} characters: {text[:200]!r}"


def drawn_recipe(rng: random.Random) -> Recipe:
    """Windows that overlap, touch, or leave gaps; some are longer than the contigs."""
    length = rng.choice([20, 100, 300, 300, 700, 1500])
    stride = rng.choice([length, max(1, length // 2), max(1, length - 7), length + 13])
    return recipe(f"window={length},stride={stride},jitter=0,tokens=2")


def same_contigs(contigs: list[Contig], naive: list[Naive]) -> None:
    """The reader and the naive parser agree on every base and every count."""
    found = [
        Naive(c.name, c.start, c.bases.tobytes().decode(), c.soft_masked, c.converted_u, c.iupac)
        for c in contigs
    ]
    for ours, theirs in zip(found, naive, strict=True):
        assert ours == theirs, f"{ours.name}: other bases or counts than the naive parser's"


Windows = list[tuple[int, int, int]]
"""(contig number, start in the contig, split code) of every window that is written."""


def planned(plan: Plan, cutting: Recipe) -> Windows:
    """The windows that the second pass of the build writes."""
    windows: Windows = []
    for number in range(len(plan.contigs)):
        starts, codes = plan.kept(number, cutting.length)
        windows += [
            (number, start, code)
            for start, code in zip(starts.tolist(), codes.tolist(), strict=True)
        ]
    return windows


def whole_plan(
    contigs: list[Contig], naive: list[Naive], plan: Plan, windows: Windows, cutting: Recipe
) -> None:
    """Every base is in a window or counted as dropped, for a reason that is true."""
    mapped = map_bases(plan.contigs[0].folder)
    total = covered_in_all = dropped_in_all = 0
    kept_of = _by_contig(windows, len(naive))
    for number, record in enumerate(naive):
        facts, counts, kept = plan.contigs[number], plan.counts[number], kept_of[number]
        size, length = len(record.bases), cutting.length
        full, rich_in_n = [], []
        for start in range(0, size - length + 1, cutting.stride):
            text = record.bases[start : start + length]
            (rich_in_n if 2 * text.count("N") > length else full).append(start)
        assert set(kept) <= set(full), f"{record.name}: a window that should not be written"
        assert len(set(kept)) == len(kept), f"{record.name}: a window twice"
        assert facts.n_windows == len(rich_in_n), f"{record.name}: windows dropped for their Ns"
        assert sum(counts.windows) == len(kept), f"{record.name}: windows kept"
        assert counts.boundary_windows == len(full) - len(kept), f"{record.name}: boundary windows"
        covered = _covered(size, kept, length)
        dropped = sum(counts.dropped_bases.values())
        assert counts.bases_in_windows == covered, f"{record.name}: bases in windows"
        assert dropped == size - covered, f"{record.name}: {dropped} bases counted as dropped"
        expected = {
            "length": size,
            "n": record.bases.count("N"),
            "gc": record.bases.count("G") + record.bases.count("C"),
            "soft_masked": record.lower,
            "converted_u": record.uracil,
            "iupac": record.iupac,
        }
        found = {key: getattr(facts, key) for key in expected}
        assert found == expected, f"{record.name}: {found} instead of {expected}"
        for start in kept:
            window = facts.bases(mapped)[start : start + length].tobytes().decode()
            assert window == record.bases[start : start + length], f"{record.name}:{start}"
        total += size
        covered_in_all += covered
        dropped_in_all += dropped
    assert total == covered_in_all + dropped_in_all == sum(len(c.bases) for c in contigs)


def _by_contig(windows: Windows, contigs: int) -> list[list[int]]:
    starts: list[list[int]] = [[] for _ in range(contigs)]
    for number, start, _ in windows:
        starts[number].append(start)
    return starts


def _covered(size: int, starts: list[int], length: int) -> int:
    """Bases in at least one window."""
    mask = bytearray(size)
    for start in starts:
        mask[start : start + length] = b"\1" * length
    return mask.count(1)


def _build(
    path: pathlib.Path, naive: list[Naive], windows: Windows, cutting: Recipe, seed: int
) -> None:
    """The whole build: every window on disk, once, with the naive parser's bases; the counts."""
    out = path.parent / "built"
    shutil.rmtree(out, ignore_errors=True)
    built = build(
        [path], out, recipe=cutting, seed=seed, validation_share=0.2, shard_windows=16, workers=1
    )
    read = []
    for shard in built.datacard["shards"]:
        reader = ArrayRecordReader(str(out / shard["file"]))
        for record in reader.read_all():
            values = parse_record(record)
            read.append((shard["split"], values["contig"], values["start"], values["sequence"]))
        reader.close()
    length = cutting.length
    expected = [
        (
            ("train", "validation", "test")[code],
            naive[number].name,
            naive[number].start + start,
            naive[number].bases[start : start + length].encode(),
        )
        for number, start, code in windows
    ]
    assert sorted(read) == sorted(expected), "the windows on disk are not those of the plan"
    (card,) = json.loads((out / "datacard.json").read_text())["sources"]
    assert card["bases"] == sum(len(record.bases) for record in naive), "bases in the data card"
    covered = sum(
        _covered(len(record.bases), starts, length)
        for record, starts in zip(naive, _by_contig(windows, len(naive)), strict=True)
    )
    assert card["bases_in_windows"] == covered, "bases_in_windows of the data card"
    dropped = sum(card["dropped_bases"].values())
    assert card["bases"] == covered + dropped, "dropped_bases of the data card"
