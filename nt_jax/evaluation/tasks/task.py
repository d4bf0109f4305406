"""A labelled set of sequences: what it holds, and what was taken out while reading it.

N is the number of sequences of a split, C of classes.

| kind | `labels` | `classes` |
|---|---|---|
| classes | int64[N], indices into `classes` | at least two |
| multilabel | bool[N, C], any number of them true | at least one |
| values | float64[N], finite measurements | none |
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.utils import resample

Kind = Literal["classes", "multilabel", "values"]
Labels = Int[np.ndarray, " N"] | Bool[np.ndarray, "N C"] | Float[np.ndarray, " N"]


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Sequences with their labels."""

    sequences: tuple[str, ...]
    """Upper-case A, C, G, T, N."""
    labels: Labels
    """By the kind of the task; see the table at the top of this file."""
    groups: tuple[str, ...] | None = None
    """What must not be torn apart (a chromosome, a cluster) for each sequence, if it is known."""

    def __len__(self) -> int:
        return len(self.sequences)

    def take(self, indices: Sequence[int] | Int[np.ndarray, " n"]) -> "Split":
        """The sequences at `indices`, in that order."""
        groups = None if self.groups is None else tuple(self.groups[i] for i in indices)
        chosen = np.asarray(indices, np.int64)
        return Split(tuple(self.sequences[i] for i in indices), self.labels[chosen], groups)


@dataclasses.dataclass(frozen=True)
class Within:
    """What a set of sequences has twice; all of it is kept, and an interval that takes the
    sequences for independent is too narrow where they repeat.
    """

    repeated: int
    """Sequences that stood before with the same label, on either strand."""
    conflicting: int
    """Sequences that carry two labels or values, all of their rows."""
    conflicting_reversed: int
    """Sequences whose reverse complement carries another label, all of their rows; the same
    sequence has one label only.
    """

    def line(self) -> str:
        """A clause for people."""
        return (
            f"{self.repeated:,} repeats, {self.conflicting:,} with two labels, "
            f"{self.conflicting_reversed:,} with another label on the other strand"
        )


@dataclasses.dataclass(frozen=True)
class Audit:
    """What was read and what was taken out; nothing is dropped without being counted."""

    rows: Mapping[str, int]
    """Rows read from each file."""
    in_test: int
    """Training sequences dropped because the test split has the very sequence."""
    in_test_reversed: int
    """Training sequences dropped because the test split has their reverse complement."""
    conflicting: int
    """Training sequences dropped because the same sequence carries two labels or values."""
    repeated: int
    """Training sequences dropped as repeats (either strand, same label); the first stays."""
    ambiguous_letters: int
    """IUPAC letters read as N (an N itself is not counted)."""
    shared_groups: int = 0
    """Groups that stand both in training and in test, as the given split has it."""
    notes: tuple[str, ...] = ()
    """What else people should know, each a clause: intervals passed over, files not found."""
    train_within: Within | None = None
    """Of the training sequences that stay; None: not counted."""
    test_within: Within | None = None
    """Of the test split; None: not counted, or there is none."""

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Audit":
        """The inverse of `dataclasses.asdict`, through JSON too."""
        inner = {
            name: Within(**plain[name])
            for name in ("train_within", "test_within")
            if plain.get(name) is not None
        }
        return cls(**{**plain, **inner, "notes": tuple(plain["notes"])})

    def line(self) -> str:
        """One line for people."""
        rows = ", ".join(f"{name} {count:,}" for name, count in self.rows.items())
        parts = [
            f"read {rows}",
            f"dropped from training: {self.in_test} also in test, "
            f"{self.in_test_reversed} in test on the other strand, {self.conflicting} with two "
            f"labels, {self.repeated} repeats",
            f"{self.ambiguous_letters} ambiguous letters read as N",
        ]
        if self.train_within and self.train_within.conflicting_reversed:
            parts.append(
                f"kept in training: {self.train_within.conflicting_reversed:,} with another label "
                "on the other strand"
            )
        if self.test_within:
            parts.append(f"within test, all kept and scored: {self.test_within.line()}")
        if self.shared_groups:
            parts.append(f"warning: {self.shared_groups} groups stand in training and in test")
        return "; ".join([*parts, *self.notes])


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A labelled set. Without `test`, scores come from k-fold cross-validation."""

    name: str
    classes: tuple[str, ...]
    """Names of the classes (of the labels, if a sequence may carry several); () for values."""
    train: Split
    test: Split | None
    audit: Audit
    simulated: bool = False
    """Written by `data_pipelines.simulate`: whatever is printed about it says so."""
    kind: Kind = "classes"

    @property
    def groups(self) -> tuple[str, ...] | None:
        """Groups of the training sequences, which cross-validation keeps whole."""
        return self.train.groups

    @property
    def fingerprint(self) -> str:
        """SHA-256 over kind, classes, sequences, labels, groups and split."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        if self.kind != "classes":
            digest.update(f"\n{self.kind}".encode())
        for split in (self.train, self.test):
            if split is None:
                continue
            digest.update(b"\n\n")
            for row, (sequence, label) in enumerate(
                zip(split.sequences, split.labels, strict=True)
            ):
                text = "".join("01"[int(own)] for own in label) if label.ndim else str(label)
                group = "" if split.groups is None else f",{split.groups[row]}"
                digest.update(f"{sequence},{text}{group}\n".encode())
        return digest.hexdigest()


def subsample(task: Task, limit: int, seed: int) -> Task:
    """At most `limit` sequences of each split; 0 is all.

    Classes are drawn in proportion, the other kinds evenly at random.
    """

    def part(split: Split) -> Split:
        if not limit or len(split) <= limit:
            return split
        drawn = resample(
            np.arange(len(split)),
            replace=False,
            n_samples=limit,
            stratify=split.labels if task.kind == "classes" else None,
            random_state=seed,
        )
        return split.take(np.sort(drawn))

    test = None if task.test is None else part(task.test)
    return dataclasses.replace(task, train=part(task.train), test=test)
