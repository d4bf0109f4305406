"""Checks a dataset on disk: bytes, counts, alphabet, duplicates and leakage between the splits."""

import collections
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines import duplicates
from data_pipelines.datacard import read_datacard
from data_pipelines.duplicates import Columns
from data_pipelines.leaks import Answers
from data_pipelines.multispecies import PUBLISHED
from data_pipelines.near import (
    IDENTITY,
    SHARE,
    Labelled,
    Near,
    Overlap,
    ask_labelled,
    ask_windows,
    labelled_overlaps,
    repeated,
    windows_near,
)
from data_pipelines.stored import Stored, place

MOST_NEAR = 0.25
"""A larger share of near-duplicates of train is leakage, whatever the genomes are like."""
FACTOR = 3
"""So many times as many as train windows have within train are leakage, too."""
FEWEST = 3
"""Fewer near-duplicates than that are no problem: a single repeat falls into any split."""
_SHOWN = 3
"""Examples of one kind of problem that are named; all are counted."""
_SET_REPEATED = 256
"""Labelled sequences that a k-mer may stand in before it is a repeat; sets overlap by design."""


@dataclasses.dataclass(frozen=True)
class SourceFacts:
    """One source, as the data card has it."""

    name: str
    group: str
    """Empty where the manifest had none."""
    contigs: int
    bases: int
    n: int
    """Ns."""
    soft_masked: int
    """Lower-case bases of the file: repeats, where its makers marked them."""
    gc: float
    """Share of G and C among the bases that are no N."""
    windows: dict[str, int]
    """By split."""
    haplotypes: int
    """0 without genotypes."""


@dataclasses.dataclass(frozen=True)
class GroupFacts:
    """Assemblies of one group beside those of the published multispecies set."""

    species: int
    bases: int
    published_species: int | None
    """None for a group that was not part of it."""
    published_bases: float | None


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found; plain values only."""

    path: str
    """Folder of the dataset."""
    kind: str
    """"real" or "simulated", as the datacard says."""
    window_length: int
    """Bases."""
    shards: int
    """Shards read without damage."""
    windows: dict[str, int]
    """Windows read, by split."""
    n_share: dict[str, float]
    """Share of N among the bases, by split."""
    soft_masked_share: float
    """Share of lower-case bases in the input files."""
    sources: tuple[SourceFacts, ...]
    groups: dict[str, GroupFacts]
    """Empty where sources have no groups."""
    duplicates: dict[str, int]
    """Windows whose bases an earlier window of the same split has, by split."""
    duplicates_reversed: dict[str, int]
    """Different windows whose other strand is a window of the same split, by split."""
    shared: dict[str, int]
    """Windows of the first split whose bases a window of the second has, by `first/second`."""
    shared_reversed: dict[str, int]
    """Windows of the first split of which the second has the other strand, and not the same."""
    overlapping: dict[str, int]
    """Windows of the first split that overlap one of the second on its contig."""
    near: dict[str, Near]
    """Near-duplicates by `first/second`; `split/split`: elsewhere in the same split."""
    scale: int
    """Near-duplicates were looked for with one k-mer of 24 bases in so many."""
    tasks: tuple[Overlap, ...]
    """Labelled sets in the training windows."""
    problems: tuple[str, ...]
    """One line each; empty when the dataset is as it should be."""


def verify(
    path: str | os.PathLike[str],
    labelled: Sequence[Labelled] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Reads every shard of the dataset in a folder, those of the held-out splits twice.

    Damage, counts that differ from the datacard, letters other than ACGTN, windows that two splits
    share, on either strand, and more near-duplicates than repeats explain (`most_near`) are
    problems. Repeats within a split and labelled sequences in the training windows are counted
    only. Windows are those of the reference: alleles of haplotypes are checked, not compared.

    Args:
        path: the folder.
        labelled: sets to look up in the training windows.
        progress: hears (windows read, windows of the dataset).

    Raises:
        InputError: the folder holds no complete dataset.
    """
    folder = pathlib.Path(path)
    card = read_datacard(folder)
    stored = Stored(folder, card)
    length, stride = card["recipe"]["length"], card["recipe"]["stride"]
    contigs: dict[tuple[str, str], int] = {}
    asked = ask_windows(stored, contigs, length)
    sets = ask_labelled(labelled)
    present = {shard["split"]: None for shard in stored.shards}
    answers = {s: Answers(asked.questions, length, repeated(length, stride)) for s in present}
    for_sets = Answers(sets.questions, length, _SET_REPEATED)

    problems: list[str] = []
    parts: dict[str, list[Columns]] = collections.defaultdict(list)
    n: collections.Counter[str] = collections.Counter()
    good = done = 0
    total = sum(shard["records"] for shard in stored.shards)
    for nth, shard in enumerate(stored.shards):
        read = stored.read(nth)
        good += not read.problems
        problems += read.problems[:_SHOWN]
        if len(read.problems) > _SHOWN:
            more = len(read.problems) - _SHOWN
            problems.append(f"{shard['file']}: {more} more problems of this shard")
        split, windows = shard["split"], read.windows
        names = [(window.source, window.contig) for window in windows]
        own = np.array([contigs.setdefault(name, len(contigs)) for name in names], np.int32)
        columns = Columns.of(windows, own)
        parts[split].append(columns)
        bases = [window.bases for window in windows]
        n[split] += sum(window.count(b"N") for window in bases)
        answers[split].see(bases, stored.first(nth), columns.contigs, columns.starts)
        if split == "train":
            for_sets.see(bases, stored.first(nth), columns.contigs, columns.starts)
        done += shard["records"]
        progress(done, total)
    named = {shard["file"] for shard in stored.shards}
    problems += [
        f"{extra.name}: a shard that the datacard does not know; build the dataset again"
        for extra in sorted(folder.glob("*.array_record*"))
        if extra.name not in named
    ]
    splits = {name: Columns.joined(parts.pop(name, [])) for name in card["splits"]}
    for name, read_columns in splits.items():
        if len(read_columns.keys) != card["splits"][name]:
            problems.append(
                f"{name}: {len(read_columns.keys)} windows read, the datacard has "
                f"{card['splits'][name]}"
            )
    pairs = list(itertools.combinations(reversed(list(card["splits"])), 2))
    near = {
        f"{first}/{second}": windows_near(stored, asked, answers[second], first, second)
        for first, second in [*pairs, *((name, name) for name in card["splits"])]
        if first in answers and second in answers
    }
    same, reverse, overlapping = {}, {}, {}
    for first, second in pairs:
        pair = f"{first}/{second}"
        shared = duplicates.shared(splits[first], splits[second], length)
        same[pair], reverse[pair], overlapping[pair] = (
            int(hits.sum()) for hits in (shared.same, shared.reversed, shared.overlapping)
        )
        problems += _shared_problems(pair, shared, splits[first], splits[second], [*contigs])
        if second == "train" and pair in near:
            identical = same[pair] + reverse[pair]
            problems += _near_problems(pair, near[pair], identical, near["train/train"])
    repeats = {name: duplicates.repeats(own) for name, own in splits.items()}
    sources = tuple(_source(source) for source in card["sources"])
    return Report(
        path=os.fspath(path),
        kind=card["kind"],
        window_length=length,
        shards=good,
        windows={name: len(own.keys) for name, own in splits.items()},
        n_share={
            name: round(n[name] / max(1, len(own.keys) * length), 6) for name, own in splits.items()
        },
        soft_masked_share=round(
            sum(s.soft_masked for s in sources) / max(1, sum(s.bases for s in sources)), 6
        ),
        sources=sources,
        groups=_groups(card.get("groups", {})),
        duplicates={name: found for name, (found, _) in repeats.items()},
        duplicates_reversed={name: found for name, (_, found) in repeats.items()},
        shared=same,
        shared_reversed=reverse,
        overlapping=overlapping,
        near=near,
        scale=asked.sampling.scale,
        tasks=labelled_overlaps(stored, sets, for_sets),
        problems=tuple(problems),
    )


def most_near(train: Near) -> float:
    """Share of near-duplicates of train that a held-out split may have.

    Genomes have repeats, so train windows have near-duplicates within train as well: FACTOR times
    their share is taken for repeats, but never more than MOST_NEAR. Three are added to those found
    in the sample (the rule of three: none of n is no more than 3/n, with 95 % confidence).
    """
    return min(MOST_NEAR, FACTOR * (train.near + 3) / max(1, train.looked_up))


def _shared_problems(
    pair: str,
    shared: duplicates.Shared,
    first: Columns,
    second: Columns,
    contigs: Sequence[tuple[str, str]],
) -> list[str]:
    def at(columns: Columns, index: int) -> str:
        source, contig = contigs[columns.contigs[index]]
        return place(source, contig, int(columns.starts[index]))

    problems = []
    for hits, text, other in (
        (shared.same, "windows have the same bases in both splits", False),
        (shared.reversed, "windows have the reverse complement of one of the other split", True),
    ):
        if hits.any():
            here = int(np.argmax(hits))
            there = duplicates.partner(second, int(first.keys[here]), other)
            problems.append(
                f"{pair}: {hits.sum()} {text} (leakage), such as {at(first, here)} and "
                f"{at(second, there)}; hold both out with --validation"
            )
    if shared.overlapping.any():
        here = int(np.argmax(shared.overlapping))
        problems.append(
            f"{pair}: {shared.overlapping.sum()} windows overlap one of the other split (leakage), "
            f"such as {at(first, here)}; build the dataset again"
        )
    return problems


def _near_problems(pair: str, found: Near, identical: int, train: Near) -> list[str]:
    most = most_near(train)
    looked_up = max(1, found.looked_up)
    further = found.near - round(identical * looked_up / max(1, found.windows))
    if further < FEWEST or further <= most * looked_up:
        return []
    example = found.examples[-1]
    return [
        f"{pair}: {further:,} of {looked_up:,} windows ({further / looked_up:.1%}) are at least "
        f"{IDENTITY:.0%} identical to one place of train over at least {SHARE:.0%} of their bases "
        f"(leakage: up to {most:.1%} would be taken for repeats; of train windows {train.part:.1%} "
        f"are so alike elsewhere in train), such as {example.text()}; hold out whole chromosomes "
        "or species, or leave one of two related genomes out"
    ]


def _source(source: Mapping[str, Any]) -> SourceFacts:
    return SourceFacts(
        name=source["name"],
        group=source.get("group", ""),
        contigs=source["contigs"],
        bases=source["bases"],
        n=source["n"],
        soft_masked=source["soft_masked"],
        gc=source["gc"],
        windows=dict(source["windows"]),
        haplotypes=2 * len(source["haplotypes"]["samples"]) if "haplotypes" in source else 0,
    )


def _groups(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, GroupFacts]:
    """The groups of the data card, and those published ones that it lacks."""
    if not groups:
        return {}
    every = [*groups, *(name for name in PUBLISHED if name not in groups)]
    none: dict[str, int] = {"species": 0, "bases": 0}
    return {
        name: GroupFacts(
            groups.get(name, none)["species"],
            groups.get(name, none)["bases"],
            *PUBLISHED.get(name, (None, None)),
        )
        for name in (every if set(groups) & set(PUBLISHED) else groups)
    }
