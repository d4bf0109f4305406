"""Takes out of training what the test split has, what contradicts itself, and repeats."""

import collections
from collections.abc import Sequence

from nt_jax.evaluation.tasks.examples import Row, reverse_complement
from nt_jax.evaluation.tasks.labels import Value, value
from nt_jax.evaluation.tasks.task import Kind


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
    labels = collections.defaultdict(set)
    values = [value(row, kind) for row in train]
    for row, own in zip(train, values, strict=True):
        labels[row.sequence].add(own)
    seen: set[tuple[str, Value]] = set()
    kept = []
    for row, own in zip(train, values, strict=True):
        other = reverse_complement(row.sequence)
        key = min(row.sequence, other), own
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
