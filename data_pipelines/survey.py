"""First pass over the input: validates all of it and fixes which window goes into which shard.

The plan is a pure function of the contigs and the arguments. It is stored, so that a build that
was killed goes on without a second survey.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines import windows
from data_pipelines.fasta import Contig
from data_pipelines.sources import Source
from data_pipelines.windows import SPLITS, ContigSize, ContigSplits, Recipe
from nt_jax.errors import InputError

Progress = Callable[[int, int, str], None]
"""Called with (done, in all, what is being done); 0 in all while the end is unknown."""


@dataclasses.dataclass(frozen=True)
class ContigFacts:
    """What is known of one contig after the survey; counts are bases or windows."""

    source: str
    name: str
    start: int
    length: int
    n: int
    gc: int
    soft_masked: int
    converted_u: int
    iupac: int
    windows: tuple[int, ...]
    """Windows kept, one number a split."""
    n_windows: int
    """Windows dropped because more than half of them is N."""
    boundary_windows: int
    """Windows dropped because they overlap two splits."""


@dataclasses.dataclass(frozen=True)
class Unit:
    """Work of one worker: a slice of one source, written as one shard a split."""

    pieces: tuple[tuple[int, int, int], ...]
    """(contig number, first kept window, end) of each piece."""
    counts: tuple[int, ...]
    """Windows, one number a split."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything the second pass needs, and the counts for the datacard."""

    contigs: tuple[ContigFacts, ...]
    splits: tuple[ContigSplits, ...]
    units: tuple[Unit, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON form; block splits as one digit a block."""
        return {
            "contigs": [dataclasses.asdict(contig) for contig in self.contigs],
            "splits": [[s.block, "".join(map(str, s.codes.tolist()))] for s in self.splits],
            "units": [dataclasses.asdict(unit) for unit in self.units],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Plan":
        """Inverse of `to_dict`."""
        return cls(
            tuple(
                ContigFacts(**{**contig, "windows": tuple(contig["windows"])})
                for contig in values["contigs"]
            ),
            tuple(
                ContigSplits(block, np.frombuffer(codes.encode(), np.int8) - ord("0"))
                for block, codes in values["splits"]
            ),
            tuple(
                Unit(tuple(tuple(piece) for piece in unit["pieces"]), tuple(unit["counts"]))
                for unit in values["units"]
            ),
        )


def survey(
    sources: Sequence[Source],
    recipe: Recipe,
    *,
    validation: Sequence[str],
    test: Sequence[str],
    seed: int,
    validation_share: float,
    shard_windows: int,
    progress: Progress,
) -> Plan:
    """Reads all contigs once. Splits are those of the sources, else by name, else by blocks.

    Raises InputError for bad input, an unknown contig in `validation` or `test`, when no window
    is left at all, or none for training or for a split that was asked for.
    """
    facts: list[ContigFacts] = []
    starts: list[np.ndarray] = []
    for i, source in enumerate(sources):
        progress(i, len(sources), f"reading {source.name}")
        for contig in source.read():
            own, dropped = full_windows(contig, recipe)
            starts.append(own)
            facts.append(_facts(source.name, contig, dropped))
    sizes = [ContigSize(c.source, c.name, c.start, c.length) for c in facts]
    asked: dict[str, Sequence[str]] = {"validation": validation, "test": test}
    by_source = {source.name: source.split for source in sources if source.split}
    if by_source:
        splits = windows.split_by_source(sizes, by_source)
    elif validation or test:
        splits = windows.split_by_name(sizes, validation, test)
    else:
        splits = windows.split_by_blocks(sizes, starts, recipe, seed, validation_share)
    codes = [s.of(own, recipe.length) for s, own in zip(splits, starts, strict=True)]
    facts = [
        dataclasses.replace(
            contig,
            windows=tuple(int(np.count_nonzero(own == code)) for code in range(len(SPLITS))),
            boundary_windows=int(np.count_nonzero(own == windows.BOUNDARY)),
        )
        for contig, own in zip(facts, codes, strict=True)
    ]
    _require_windows(facts, recipe, by_source, asked)
    kept = [own[own != windows.BOUNDARY] for own in codes]
    return Plan(tuple(facts), tuple(splits), tuple(_units(facts, kept, shard_windows)))


def full_windows(contig: Contig, recipe: Recipe) -> tuple[np.ndarray, int]:
    """(int64[windows] starts of the windows with enough bases, windows dropped for their Ns)."""
    starts = windows.plan_windows(len(contig.bases), recipe)
    few = windows.count_n(contig.bases, starts, recipe.length) <= (
        windows.MAX_N_SHARE * recipe.length
    )
    return starts[few], int(np.count_nonzero(~few))


def kept_windows(
    contig: Contig, splits: ContigSplits, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray]:
    """(int64[windows] starts, int8[windows] split codes) of the windows that are written."""
    starts, _ = full_windows(contig, recipe)
    codes = splits.of(starts, recipe.length)
    kept = codes != windows.BOUNDARY
    return starts[kept], codes[kept]


def _facts(source: str, contig: Contig, dropped: int) -> ContigFacts:
    counts = {base: int(np.count_nonzero(contig.bases == ord(base))) for base in "GCN"}
    return ContigFacts(
        source=source,
        name=contig.name,
        start=contig.start,
        length=len(contig.bases),
        n=counts["N"],
        gc=counts["G"] + counts["C"],
        soft_masked=contig.soft_masked,
        converted_u=contig.converted_u,
        iupac=contig.iupac,
        windows=(),
        n_windows=dropped,
        boundary_windows=0,
    )


def _require_windows(
    facts: Sequence[ContigFacts],
    recipe: Recipe,
    by_source: Mapping[str, str],
    asked: Mapping[str, Sequence[str]],
) -> None:
    totals = dict(zip(SPLITS, np.sum([c.windows for c in facts], axis=0).tolist(), strict=True))
    longest = max(facts, key=lambda contig: contig.length)
    if not sum(totals.values()):
        raise InputError(
            f"{longest.source}: no window of {recipe.length} bases is left of {len(facts)} contigs "
            f"(the longest, {longest.name}, has {longest.length} bases; windows more than half N "
            "are dropped); choose a recipe with shorter windows"
        )
    for split in dict.fromkeys(["train", *by_source.values()] if by_source else []):
        if not totals[split]:
            count = list(by_source.values()).count(split)
            raise InputError(
                f"{split}: no window of {recipe.length} bases is left of its {count} sources; "
                "give it others, or choose a recipe with shorter windows"
            )
    if not totals["train"]:
        raise InputError(
            "no window is left for training; hold out fewer contigs with --validation and --test"
        )
    for split, names in asked.items():
        if names and not totals[split]:
            raise InputError(
                f"--{split} {' '.join(names)}: no window of {recipe.length} bases is left of it; "
                "name longer contigs"
            )


def _units(
    facts: Sequence[ContigFacts], codes: Sequence[np.ndarray], shard_windows: int
) -> list[Unit]:
    """Consecutive kept windows of one source, `shard_windows` at a time, over contig ends."""
    units: list[Unit] = []
    pieces: list[tuple[int, int, int]] = []
    room = shard_windows

    def close() -> None:
        nonlocal pieces, room
        if pieces:
            own = np.concatenate([codes[number][first:end] for number, first, end in pieces])
            counts = np.bincount(own, minlength=len(SPLITS)).tolist()
            units.append(Unit(tuple(pieces), tuple(counts)))
        pieces, room = [], shard_windows

    for number, contig in enumerate(facts):
        if number and contig.source != facts[number - 1].source:
            close()
        first = 0
        while first < len(codes[number]):
            end = min(first + room, len(codes[number]))
            pieces.append((number, first, end))
            room -= end - first
            first = end
            if not room:
                close()
    close()
    return units
