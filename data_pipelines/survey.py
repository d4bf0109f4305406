"""Fixes which window goes into which split and shard: a pure function of contigs and arguments."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines import windows
from data_pipelines.contigs import StagedContig
from data_pipelines.windows import SPLITS, ContigSize, ContigSplits, Recipe
from nt_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Counts:
    """What becomes of the windows and bases of one contig."""

    windows: tuple[int, ...]
    """Windows kept, one number a split."""
    boundary_windows: int
    """Windows dropped because they overlap two splits."""
    bases_in_windows: int
    """Bases that at least one window has."""
    dropped_bases: dict[str, int]
    """All others, by the reason: `short_contigs` (shorter than a window), `n_windows`,
    `boundary_windows`, `remainder` (behind the last whole window, or between windows)."""


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

    contigs: tuple[StagedContig, ...]
    counts: tuple[Counts, ...]
    splits: tuple[ContigSplits, ...]
    units: tuple[Unit, ...]

    def kept(self, number: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """(int64[windows] starts, int8[windows] split codes) of a contig's windows."""
        starts = self.contigs[number].starts()
        codes = self.splits[number].of(starts, length)
        kept = codes != windows.BOUNDARY
        return starts[kept], codes[kept]


def survey(
    contigs: Sequence[StagedContig],
    recipe: Recipe,
    *,
    by_source: Mapping[str, str],
    validation: Sequence[str],
    test: Sequence[str],
    seed: int,
    validation_share: float,
    shard_windows: int,
) -> Plan:
    """Splits are those of the sources (`by_source`), else by name, else by blocks.

    Raises InputError for an unknown contig in `validation` or `test`, when no window is left at
    all, or none for training or for a split that was asked for.
    """
    asked: dict[str, Sequence[str]] = {"validation": validation, "test": test}
    starts = [contig.starts() for contig in contigs]
    sizes = [ContigSize(c.source, c.name, c.start, c.length) for c in contigs]
    if by_source:
        splits = windows.split_by_source(sizes, by_source)
    elif validation or test:
        splits = windows.split_by_name(sizes, validation, test)
    else:
        splits = windows.split_by_blocks(sizes, starts, recipe, seed, validation_share)
    codes = [s.of(own, recipe.length) for s, own in zip(splits, starts, strict=True)]
    counts = [_counts(*columns, recipe) for columns in zip(contigs, starts, codes, strict=True)]
    _require_windows(contigs, counts, recipe, by_source, asked)
    kept = [own[own != windows.BOUNDARY] for own in codes]
    units = _units(contigs, kept, shard_windows)
    return Plan(tuple(contigs), tuple(counts), tuple(splits), tuple(units))


def _counts(contig: StagedContig, starts: np.ndarray, codes: np.ndarray, recipe: Recipe) -> Counts:
    boundary = codes == windows.BOUNDARY
    planned = windows.plan_windows(contig.length, recipe)
    inside, with_boundary, with_n = (
        _covered(own, recipe.length) for own in (starts[~boundary], starts, planned)
    )
    rest = contig.length - with_n
    short = contig.length < recipe.length
    return Counts(
        windows=tuple(int(np.count_nonzero(codes == code)) for code in range(len(SPLITS))),
        boundary_windows=int(np.count_nonzero(boundary)),
        bases_in_windows=inside,
        dropped_bases={
            "short_contigs": rest if short else 0,
            "n_windows": with_n - with_boundary,
            "boundary_windows": with_boundary - inside,
            "remainder": 0 if short else rest,
        },
    )


def _covered(starts: np.ndarray, length: int) -> int:
    """Bases in the union of windows that start at ascending `starts`."""
    return int(np.minimum(np.diff(starts), length).sum()) + length if len(starts) else 0


def _require_windows(
    contigs: Sequence[StagedContig],
    counts: Sequence[Counts],
    recipe: Recipe,
    by_source: Mapping[str, str],
    asked: Mapping[str, Sequence[str]],
) -> None:
    totals = dict(zip(SPLITS, np.sum([c.windows for c in counts], axis=0).tolist(), strict=True))
    longest = max(contigs, key=lambda contig: contig.length)
    if not sum(totals.values()):
        raise InputError(
            f"{longest.source}: no window of {recipe.length} bases is left of {len(contigs)} "
            f"contigs (the longest, {longest.name}, has {longest.length} bases; windows more than "
            "half N are dropped); choose a recipe with shorter windows"
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
    contigs: Sequence[StagedContig], codes: Sequence[np.ndarray], shard_windows: int
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

    for number, contig in enumerate(contigs):
        if number and contig.source != contigs[number - 1].source:
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
