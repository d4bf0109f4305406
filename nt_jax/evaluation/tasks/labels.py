"""Decides what kind of labels a task has, and turns them into an array.

| labels of all files | kind |
|---|---|
| integers or names | classes |
| numbers, at least one of them not an integer | values |
| sets of names | multilabel |
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from nt_jax.errors import InputError
from nt_jax.evaluation.tasks.examples import INTEGER, MEASUREMENT, Row
from nt_jax.evaluation.tasks.task import Kind, Labels

Value = str | float | frozenset[str]
"""What two rows are compared by: 1.50 and 1.5 are the same measurement."""


@dataclasses.dataclass(frozen=True)
class Encoding:
    """The labels of a task."""

    kind: Kind
    classes: tuple[str, ...]

    def encode(self, rows: Sequence[Row]) -> Labels:
        """The array of labels; InputError for a label that is not among `classes`."""
        if self.kind == "values":
            return np.array([value(row, "values") for row in rows], np.float64)
        number = {name: index for index, name in enumerate(self.classes)}
        for row in rows:
            for name in sorted(names(row)):
                if name not in number:
                    raise row.error(
                        f"label {name!r} does not occur in training ({', '.join(self.classes)})"
                    )
        if self.kind == "classes":
            return np.array([number[str(row.label)] for row in rows], np.int64)
        labels = np.zeros((len(rows), len(self.classes)), bool)
        for index, row in enumerate(rows):
            labels[index, [number[name] for name in names(row)]] = True
        return labels


def kind_of(rows: Sequence[Row]) -> Kind:
    """The kind that all rows of a task agree on; InputError names the first one that does not."""
    sets = isinstance(rows[0].label, frozenset)
    for row in rows:
        if isinstance(row.label, frozenset) != sets or row.columns != rows[0].columns:
            raise row.error(
                f"{_form(row)}, but {rows[0].file.name} has {_form(rows[0])}; one task has one "
                "form of labels"
            )
    if sets:
        return "multilabel"
    measured = next((row for row in rows if MEASUREMENT.fullmatch(str(row.label))), None)
    if measured is None:
        return "classes"
    for row in rows:
        if not (INTEGER.fullmatch(str(row.label)) or MEASUREMENT.fullmatch(str(row.label))):
            raise row.error(
                f"the label {row.label!r} is a name, but {measured.where} of "
                f"{measured.file.name} has the measurement {measured.label!r}; labels are all "
                "classes or all numbers"
            )
    return "values"


def value(row: Row, kind: Kind) -> Value:
    """The label of a row, equal for equal labels."""
    return float(str(row.label)) if kind == "values" else row.label


def names(row: Row) -> frozenset[str]:
    """The classes a row belongs to."""
    return row.label if isinstance(row.label, frozenset) else frozenset([row.label])


def encoding(kind: Kind, rows: Sequence[Row], path: object) -> Encoding:
    """From the training rows; InputError where they leave nothing to learn."""
    if kind == "values":
        values = {value(row, kind) for row in rows}
        if len(values) < 2:
            what = f"only the value {rows[0].label}" if rows else "no sequence"
            raise InputError(f"{path}: {what} in training; a task needs at least two values")
        return Encoding(kind, ())
    columns = rows[0].columns if rows else None
    classes = columns or _ordered({name for row in rows for name in names(row)})
    if len(classes) < (1 if kind == "multilabel" else 2):
        what = f"only the label {classes[0]!r}" if classes else "no label"
        what = what if rows else "no sequence"
        raise InputError(f"{path}: {what} in training; a task needs at least two classes")
    return Encoding(kind, classes)


def _form(row: Row) -> str:
    if row.columns:
        return "the columns " + ", ".join(f"label:{name}" for name in row.columns)
    return "a column labels" if isinstance(row.label, frozenset) else "a column label"


def _ordered(labels: set[str]) -> tuple[str, ...]:
    if all(INTEGER.fullmatch(label) for label in labels):
        return tuple(sorted(labels, key=int))
    return tuple(sorted(labels))
