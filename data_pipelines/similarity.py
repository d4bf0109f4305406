"""How much of one sequence is in another one, on either strand, and how similar it is.

No alignment is computed. Of the k-mers of the query, a share c is in the target; if bases differ
independently of each other, a k-mer stays whole with probability identity^k, so that
identity = c^(1/k) (as in Mash and its kin; containment instead of Jaccard). Where the query is
only partly in the target, c is taken over the part that is: the stretch whose k-mers score most
when each shared one counts 1 - FLOOR and each other one -FLOOR.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool

from data_pipelines import sketch

K = 12
"""Bases of a k-mer here. Chance shares one in 4^12 a base of the target: about 0.1 % of them in a
target of 18 kb."""
FLOOR = 0.25
"""A stretch ends where fewer than this share of k-mers go on being shared: about 89 % identity."""

_COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")


@dataclasses.dataclass(frozen=True)
class Match:
    """The best stretch of a query in a target."""

    identity: float
    """Estimated share of equal bases within the stretch, 0..1."""
    share: float
    """Share of the query, without its Ns, that the stretch is."""
    reverse: bool
    """It is on the other strand of the target."""
    start: int
    """Where it begins in the query."""
    target_start: int
    """Where it begins in the target: its lowest coordinate, on either strand."""
    exact: bool
    """The whole query, every base of it, stands in the target."""


def reverse_complement(bases: bytes) -> bytes:
    """The other strand, read in its own direction; N stays N."""
    return bases.translate(_COMPLEMENT)[::-1]


def best_match(query: bytes, target: bytes) -> Match | None:
    """The best stretch of `query` in `target`; None if they share no k-mer.

    Both are upper-case A, C, G, T and N. A query shorter than K bases is found whole or not at all.
    """
    for reverse, strand in ((False, query), (True, reverse_complement(query))):
        place = target.find(strand)
        if place >= 0 and query:
            return Match(1.0, 1.0, reverse, 0, place, True)
    forward, backward, whole = sketch.strands(query, K)
    places = np.flatnonzero(whole)
    if not len(places):
        return None
    others, _, known = sketch.strands(target, K)
    starts = np.flatnonzero(known)
    starts = starts[np.argsort(others[starts], kind="stable")]
    others = others[starts]
    if not len(others):
        return None
    best, score = None, 0.0
    for reverse, own in ((False, forward[places]), (True, backward[places])):
        found = np.minimum(np.searchsorted(others, own), len(others) - 1)
        shared = others[found] == own
        first, last, gained = _stretch(shared)
        if gained > score:
            score = gained
            best = reverse, first, last, shared, int(starts[found[last if reverse else first]])
    if best is None:
        return None
    reverse, first, last, shared, target_start = best
    length = int(places[last] - places[first]) + K
    return Match(
        identity=float(shared[first : last + 1].mean() ** (1 / K)),
        share=min(1.0, length / max(1, len(query) - query.count(b"N"))),
        reverse=reverse,
        start=int(places[first]),
        target_start=target_start,
        exact=False,
    )


def _stretch(shared: Bool[np.ndarray, " n"]) -> tuple[int, int, float]:
    """(first, last, score) of the stretch that scores most; both ends are shared k-mers."""
    sums = np.concatenate([[0.0], np.cumsum(shared - FLOOR)])
    lowest = np.minimum.accumulate(sums)
    end = int(np.argmax(sums - lowest))
    if not end:
        return 0, 0, 0.0
    begin = int(np.argmin(sums[:end]))
    return begin, end - 1, float(sums[end] - sums[begin])
