"""From intervals of element classes to shares of tokens.

C element classes, N bases of a window, T tokens, n intervals of one class.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int


def base_labels(
    intervals: Sequence[Int[np.ndarray, "_ 2"]], start: int, end: int
) -> Bool[np.ndarray, "C N"]:
    """Which bases of start..end are in which class.

    `intervals` holds, for each class, sorted disjoint half-open intervals on the same coordinates.
    """
    labels = np.zeros((len(intervals), end - start), bool)
    for row, own in zip(labels, intervals, strict=True):
        first = np.searchsorted(own[:, 1], start, side="right")
        stop = np.searchsorted(own[:, 0], end, side="left")
        for a, b in (own[first:stop] - start).tolist():
            row[max(a, 0) : b] = True
    return labels


def token_fractions(
    labels: Bool[np.ndarray, "C N"], covered: Int[np.ndarray, " T"]
) -> Float[np.ndarray, "C T"]:
    """Share of each token's bases that is in each class; 0 for tokens that cover no base.

    `covered` is the number of bases of each token (0 of `<cls>` and pads), one after the other
    from the first base; together at most N.
    """
    sums = np.zeros((len(labels), labels.shape[1] + 1), np.int64)
    np.cumsum(labels, axis=1, out=sums[:, 1:])
    edges = np.concatenate([[0], np.cumsum(covered)])
    inside = np.diff(sums[:, edges], axis=1)
    return (inside / np.maximum(covered, 1)).astype(np.float32)


def rotated(
    fractions: Float[np.ndarray, "C T"], covered: Int[np.ndarray, " T"], seed: int, number: int
) -> Float[np.ndarray, "C T"]:
    """The fractions of a window turned round along its tokens: the position control.

    The tokens that cover bases take the fractions of those a quarter to three quarters of the
    window further on, all classes together, so that the classes keep their shares, lengths and
    neighbours and lose their sequence. The offset depends on `seed` and the window's `number`.
    """
    real = np.flatnonzero(covered)
    low, high = len(real) // 4, max(3 * len(real) // 4, len(real) // 4 + 1)
    offset = int(np.random.default_rng([seed, number]).integers(low, high))
    turned = np.zeros_like(fractions)
    turned[:, real] = np.roll(fractions[:, real], offset, axis=1)
    return turned
