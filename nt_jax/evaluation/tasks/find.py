"""Finds a task by its path or its registered name."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence

from data_pipelines.mirrors import MIRROR, mirror_folders
from nt_jax.errors import InputError, nearest
from nt_jax.evaluation.table import aligned
from nt_jax.evaluation.tasks.layouts import Parts
from nt_jax.evaluation.tasks.read import assemble, read_task, rows_of
from nt_jax.evaluation.tasks.registry import REGISTRY, SUITES, Entry
from nt_jax.evaluation.tasks.task import Task


def find_task(name_or_path: str | os.PathLike[str], roots: Sequence[pathlib.Path] = ()) -> Task:
    """The task at a path, or the registered task of that name in one of the data folders.

    Looked through are `roots`, then the folders that NT_JAX_DATA_MIRROR names. What differs from
    the published sizes is in the audit. Raises InputError that says what to fetch and where to put
    it, or the nearest name.
    """
    path = pathlib.Path(name_or_path)
    if path.exists():
        return read_task(path)
    name = str(name_or_path)
    entry = REGISTRY.get(name)
    if entry is None:
        raise InputError(f"{name}: no such task; neither a path nor a registered name{_like(name)}")
    found = locate(entry, roots)
    if found is None:
        raise InputError(_missing(entry, roots))
    parts, notes = rows_of(found)
    return assemble(found, entry.name, parts, [*notes, *_differences(entry, parts)])


def locate(entry: Entry, roots: Sequence[pathlib.Path] = ()) -> pathlib.Path | None:
    """Where the files of a registered task are; None if they are in none of the data folders."""
    return next((path for root in _roots(roots) for path in _places(entry, root)), None)


def _roots(roots: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    return [*map(pathlib.Path, roots), *mirror_folders()]


def _places(entry: Entry, root: pathlib.Path) -> Iterator[pathlib.Path]:
    suite = SUITES[entry.suite]
    for base in (root, root / "labelled"):
        named = [base / folder for folder in suite.folders]
        if suite.alone or base.resolve().name in suite.folders:
            named.append(base)
        for folder in named:
            yield from (folder / place for place in entry.places if (folder / place).exists())


def _like(name: str) -> str:
    same = [known for known in REGISTRY if known.endswith(f"/{name}")]
    if same:
        return f"; did you mean {' or '.join(map(repr, same))}?"
    return nearest(name, REGISTRY) or "; `nt-jax tasks` lists the names"


def _missing(entry: Entry, roots: Sequence[pathlib.Path]) -> str:
    suite = SUITES[entry.suite]
    looked = ", ".join(map(str, _roots(roots))) or f"any data folder ({MIRROR} is not set)"
    place = f"DIR/{suite.folders[0]}/{entry.places[0]}"
    return (
        f"{entry.name}: not found in {looked}; fetch it from {suite.source}, put {suite.files} "
        f"into {place} and set {MIRROR}=DIR"
    )


def _differences(entry: Entry, parts: Parts) -> Iterator[str]:
    """What is there against what was published, a clause each."""
    published = entry.sizes()
    if list(parts) == ["all"]:
        sizes = ", ".join(f"{split} {size:,}" for split, size in published.items())
        yield f"{len(parts['all']):,} sequences without splits (published: {sizes})"
        return
    for split, size in published.items():
        if split not in parts:
            yield f"no {split} split (published: {size:,} sequences)"
        elif len(parts[split]) != size:
            yield f"{split} has {len(parts[split]):,} sequences (published: {size:,})"
    for split in parts.keys() - published:
        yield f"{split} has {len(parts[split]):,} sequences (published: no such split)"


@dataclasses.dataclass(frozen=True)
class Listing:
    """A registered task and where it was found."""

    entry: Entry
    path: pathlib.Path | None


def list_tasks(roots: Sequence[pathlib.Path] = ()) -> list[Listing]:
    """All registered tasks."""
    return [Listing(entry, locate(entry, roots)) for entry in REGISTRY.values()]


def task_table(roots: Sequence[pathlib.Path] = ()) -> str:
    """All registered tasks as a table for people."""
    header = ["task", "kind", "classes", "train", "dev", "test", "bases", "metric", "found"]
    listings = list_tasks(roots)
    rows = []
    for listing in listings:
        entry = listing.entry
        sizes = [
            "–" if size is None else f"{size:,}" for size in (entry.train, entry.dev, entry.test)
        ]
        found = "yes" if listing.path else "no"
        rows.append(
            [
                entry.name,
                entry.kind,
                str(entry.classes),
                *sizes,
                f"{entry.length:,}",
                entry.metric,
                found,
            ]
        )
    there = collections.Counter(
        listing.entry.suite for listing in listings if listing.path is not None
    )
    every = collections.Counter(listing.entry.suite for listing in listings)
    lines = [
        f"{name}: {suite.title}; {there[name]} of {every[name]} found; {suite.licence}; "
        f"{suite.source}"
        for name, suite in SUITES.items()
    ]
    return "\n".join([aligned(header, rows), "", *lines])
