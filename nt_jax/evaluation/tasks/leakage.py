"""Takes out of training what the test split has, what contradicts itself, and repeats.

What is scored is never changed, as published scores are of all of it: its repeats and
contradictions are counted. A sequence whose other strand carries another label is counted and kept
in training too, because labels may be about the strand (a splice site, a promoter's direction).
"""

import collections
from collections.abc import Sequence

from nt_jax.evaluation.tasks.examples import Row, reverse_complement
from nt_jax.evaluation.tasks.labels import Value, value
from nt_jax.evaluation.tasks.task import Kind, Within


def without_leakage(
    train: Sequence[Row], test: Sequence[Row], kind: Kind
) -> tuple[list[Row], collections.Counter[str]]:
    """Training rows that may stay, and how many were dropped for which reason.

    A sequence that carries two labels (two sets of labels, two measurements) is dropped with all
    its rows: nothing says which is right. Of equal rows, on either strand, the first stays. The
    test split is left as it is.
    """
    dropped = collections.Counter(in_test=0, in_test_reversed=0, conflicting=0, repeated=0)
    in_test = {row.sequence for row in test}
    labels = _labels(train, kind)
    seen: set[tuple[str, Value]] = set()
    kept = []
    for row in train:
        other = reverse_complement(row.sequence)
        key = min(row.sequence, other), value(row, kind)
        if row.sequence in in_test:
            dropped["in_test"] += 1
        elif other in in_test:
            dropped["in_test_reversed"] += 1
        elif len(labels[row.sequence]) > 1:
            dropped["conflicting"] += 1
        elif key in seen:
            dropped["repeated"] += 1
        else:
            seen.add(key)
            kept.append(row)
    return kept, dropped


def within(rows: Sequence[Row], kind: Kind) -> Within:
    """Counts what repeats and contradicts itself among `rows`; see `Within`."""
    labels = _labels(rows, kind)
    seen: set[tuple[str, Value]] = set()
    repeated = conflicting = reverse = 0
    for row in rows:
        own, other = value(row, kind), reverse_complement(row.sequence)
        key = min(row.sequence, other), own
        repeated += key in seen
        seen.add(key)
        if len(labels[row.sequence]) > 1:
            conflicting += 1
        elif labels.get(other, {own}) != {own}:
            reverse += 1
    return Within(repeated, conflicting, reverse)


def _labels(rows: Sequence[Row], kind: Kind) -> dict[str, set[Value]]:
    """All labels of every sequence, on the strand as it stands."""
    labels: dict[str, set[Value]] = {}
    for row in rows:
        labels.setdefault(row.sequence, set()).add(value(row, kind))
    return labels
