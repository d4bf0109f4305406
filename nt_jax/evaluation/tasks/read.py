"""Reads a task from a path: rows, kind, cleaning, split and audit."""

import collections
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from nt_jax.errors import InputError
from nt_jax.evaluation.tasks.examples import Row
from nt_jax.evaluation.tasks.intervals import read_description, read_intervals
from nt_jax.evaluation.tasks.labels import Encoding, encoding, kind_of
from nt_jax.evaluation.tasks.layouts import Parts, read_parts
from nt_jax.evaluation.tasks.leakage import within, without_leakage
from nt_jax.evaluation.tasks.task import Audit, Split, Task

SIMULATION = "simulation.json"
"""Marks a folder written by `data_pipelines.simulate`."""


def read_task(path: str | pathlib.Path) -> Task:
    """Reads a file or folder; the table of the package says what becomes what.

    Raises InputError for a missing file or column, a bad label, an empty sequence, a bad letter
    (with the line), a test label that training lacks, or labels that leave nothing to learn.
    """
    path = pathlib.Path(path)
    return assemble(path, name_of(path), *rows_of(path))


def rows_of(path: pathlib.Path) -> tuple[Parts, list[str]]:
    """The rows of each split, all with their sequences, and notes for the audit."""
    if path.is_file() and path.suffix == ".json":
        return read_intervals(read_description(path))
    parts, notes = read_parts(path)
    for rows in parts.values():
        for row in rows:
            if row.interval is not None:
                raise row.error(
                    "an interval without bases; name file and reference in a JSON file: "
                    f'{{"intervals": "{path.name}", "reference": "genome.fa"}}'
                )
    return parts, notes


def name_of(path: pathlib.Path) -> str:
    """The name of a task that is read from `path`."""
    if not path.is_dir():
        return path.name.removesuffix(".gz").rpartition(".")[0]
    # Numbered folders (GUE: tf/0, mouse/1) say nothing without their parent.
    resolved = path.resolve()
    return "_".join(resolved.parts[-2:]) if resolved.name.isdigit() else resolved.name


def assemble(path: pathlib.Path, name: str, parts: Parts, notes: Sequence[str]) -> Task:
    """The task of these rows: cleaned, encoded and counted."""
    test_name = None if len(parts) == 1 else list(parts)[-1]
    train = [row for split, rows in parts.items() if split != test_name for row in rows]
    test = parts[test_name] if test_name else []
    if not train + test:
        raise InputError(f"{path}: no sequences ({'; '.join(notes)})")

    kind = kind_of(train + test)
    kept, dropped = without_leakage(train, test, kind)
    code = encoding(kind, kept, path)
    splits = _split(kept, code), _split(test, code) if test_name else None
    if kind == "multilabel":
        notes = [*notes, *_constant(splits[0], code)]
    audit = Audit(
        rows=dict(collections.Counter(row.source for row in train + test)),
        in_test=dropped["in_test"],
        in_test_reversed=dropped["in_test_reversed"],
        conflicting=dropped["conflicting"],
        repeated=dropped["repeated"],
        ambiguous_letters=sum(row.ambiguous for row in train + test),
        shared_groups=len({row.group for row in kept} & {row.group for row in test} - {None}),
        notes=tuple(notes),
        train_within=within(kept, kind),
        test_within=within(test, kind) if test_name else None,
    )
    marks = [parent / SIMULATION for parent in path.resolve().parents[:3]]
    simulated = any(mark.is_file() for mark in marks)
    return Task(name, code.classes, *splits, audit, simulated, kind)


def _constant(split: Split, code: Encoding) -> Iterator[str]:
    held = split.labels.sum(axis=0)
    names = np.array(code.classes)[(held == 0) | (held == len(split))]
    if names.size:
        yield f"the same for all training sequences: {', '.join(names)}"


def _split(rows: Sequence[Row], code: Encoding) -> Split:
    sequences = tuple(row.sequence for row in rows)
    groups = tuple(row.group for row in rows if row.group is not None)
    if groups and len(groups) < len(rows):
        without = next(row for row in rows if row.group is None)
        raise InputError(
            f"{without.file}: no column 'group', which other files of the task have; add it or "
            "drop theirs"
        )
    return Split(sequences, code.encode(rows), groups or None)
