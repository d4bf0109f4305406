"""Is the share of a class above what its size alone would give? Windows are the unit.

Tokens of one window are not independent of each other; windows side by side nearly are. For every
window there is what was observed and what was expected, and all of them are kept or left out
together. W windows, K cells (layers x heads), R replicates.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import false_discovery_control

LEAST_WINDOWS = 10
"""A test needs so many windows that hold the class, and so many in which something reached it."""
FLIPS = 9_999
"""Sign flips of a test: the smallest possible p is 1 / (FLIPS + 1)."""
REPLICATES = 1_000
"""Bootstrap resamples."""
ROUNDING = 1e-6
"""Differences up to this share of a window's total are float32 rounding, and count as none."""
_CHUNK = 500


@dataclasses.dataclass(frozen=True, eq=False)
class Enrichment:
    """Observed against expected, for every cell."""

    share: Float[np.ndarray, " K"]
    """Observed share over all used windows; NaN where nothing was observed."""
    expected: Float[np.ndarray, " K"]
    """Expected share over the same windows, weighted in the same way."""
    low: Float[np.ndarray, " K"]
    """Lower end of the 95 % interval of the ratio share / expected, over windows."""
    high: Float[np.ndarray, " K"]
    """Upper end."""
    p: Float[np.ndarray, " K"]
    """Two-sided p of the sign-flip test; NaN where too few windows had anything to say."""
    informative: Float[np.ndarray, " K"]
    """Windows that have anything observed."""

    @property
    def ratio(self) -> Float[np.ndarray, " K"]:
        """share / expected."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.share / self.expected


def usable(expected: Float[np.ndarray, " W"]) -> tuple[Bool[np.ndarray, " W"], int, int]:
    """(windows that can show anything, windows without the class, windows wholly of the class)."""
    without, wholly = expected <= 0, expected >= 1 - 1e-6
    return ~(without | wholly), int(without.sum()), int(wholly.sum())


def enrichment(
    inside: Float[np.ndarray, "W K"],
    total: Float[np.ndarray, "W K"],
    expected: Float[np.ndarray, " W"],
    seed: int,
) -> Enrichment:
    """Compares `inside` with `total * expected`, window by window.

    The ratio is of sums over windows, so windows weigh as their totals do (attention: nearly
    alike; pairs above a threshold: by their number, as Vig et al. pool them). The test flips the
    signs of the windows' differences: were the class nothing to the head, either sign would be as
    likely. It asks for the same sum as the ratio, so both point the same way.
    """
    inside, total = inside.astype(np.float64), total.astype(np.float64)
    hoped = total * expected.astype(np.float64)[:, None]
    difference = inside - hoped
    difference[np.abs(difference) <= ROUNDING * total] = 0.0
    informative = (total > 0).sum(axis=0)
    p = np.full(inside.shape[1], np.nan)
    # Where hardly any window has something inside, nearly all differences are small and negative,
    # whatever the head does; flipped signs are then no null hypothesis.
    reached = (inside > 0).sum(axis=0)
    enough = (informative >= LEAST_WINDOWS) & (reached >= LEAST_WINDOWS)
    p[enough] = sign_flip(difference[:, enough], seed)
    low, high = _interval(inside, hoped, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = total.sum(axis=0)
        share, share_expected = inside.sum(axis=0) / whole, hoped.sum(axis=0) / whole
    return Enrichment(share, share_expected, low, high, p, informative.astype(np.float64))


def sign_flip(
    difference: Float[np.ndarray, "W K"], seed: int, flips: int = FLIPS
) -> Float[np.ndarray, " K"]:
    """Two-sided p values of "each window's difference is as likely with the other sign".

    The same `flips` random sign patterns serve all cells, and the observed one counts as one more.
    """
    rng = np.random.default_rng(seed)
    observed = np.abs(difference.sum(axis=0))
    # Sums of the same numbers in another order differ in their last bits.
    slack = 1e-9 * np.abs(difference).sum(axis=0)
    reached = np.zeros(difference.shape[1], np.int64)
    for first in range(0, flips, _CHUNK):
        size = (min(_CHUNK, flips - first), len(difference))
        signs = 2.0 * rng.integers(0, 2, size) - 1.0
        reached += (np.abs(signs @ difference) >= observed - slack).sum(axis=0)
    return (1 + reached) / (1 + flips)


def resampled_weights(
    count: int, seed: int, replicates: int = REPLICATES
) -> Float[np.ndarray, "R W"]:
    """How often each of `count` units is drawn in each resample with replacement."""
    drawn = np.random.default_rng(seed).integers(count, size=(replicates, count))
    return np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(np.float64)


def percentiles(replicates: Float[np.ndarray, "R K"]) -> tuple[Float[np.ndarray, " K"], ...]:
    """95 % percentile intervals (low, high); NaN for a cell that has an undefined replicate."""
    low, high = np.percentile(replicates, [2.5, 97.5], axis=0)
    return low, high


def _interval(
    inside: Float[np.ndarray, "W K"], hoped: Float[np.ndarray, "W K"], seed: int
) -> tuple[Float[np.ndarray, " K"], ...]:
    if not len(inside):
        nothing = np.full(inside.shape[1], np.nan)
        return nothing, nothing
    weights = resampled_weights(len(inside), seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        return percentiles((weights @ inside) / (weights @ hoped))


def adjusted(p: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Benjamini-Hochberg over all p values that there are; NaN stays NaN."""
    q = np.full(p.shape, np.nan)
    known = np.isfinite(p)
    if known.any():
        q[known] = false_discovery_control(p[known], method="bh")
    return q
