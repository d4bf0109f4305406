"""Scores of a classifier, with bootstrap intervals over the sequences.

Point values are scikit-learn's. The replicates are computed for many resamples at a time from
the weights with which each resample counts a sequence; two classifiers scored with the same seed
on the same sequences see the same resamples, so their replicates may be subtracted (paired
bootstrap).

C is the number of classes, N sequences, R resamples.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import accuracy_score, matthews_corrcoef, roc_auc_score

METRICS = ("mcc", "auroc", "accuracy")
REPLICATES = 1000
_CHUNK = 100


def scores(
    labels: Int[np.ndarray, " N"], probabilities: Float[np.ndarray, "N C"]
) -> dict[str, float]:
    """MCC, AUROC and accuracy; the predicted class is the most probable one.

    With more than two classes AUROC is the mean of one class against the rest, over the classes
    that occur. It is NaN when only one class occurs, and MCC is 0 then.
    """
    predicted = probabilities.argmax(axis=1)
    areas = [
        float(roc_auc_score(labels == c, probabilities[:, c]))
        for c in _scored_classes(probabilities.shape[1])
        if 0 < np.count_nonzero(labels == c) < len(labels)
    ]
    several = len(np.unique(labels)) > 1
    return {
        "mcc": float(matthews_corrcoef(labels, predicted)) if several else 0.0,
        "auroc": float(np.mean(areas)) if areas else float("nan"),
        "accuracy": float(accuracy_score(labels, predicted)),
    }


def bootstrap(
    labels: Int[np.ndarray, " N"],
    probabilities: Float[np.ndarray, "N C"],
    seed: int,
    replicates: int = REPLICATES,
) -> dict[str, Float[np.ndarray, " R"]]:
    """The same scores on `replicates` resamples of the N sequences, drawn with replacement.

    Depends on `seed` and N alone for what is drawn. AUROC leaves out a class that a resample
    lacks; it is NaN where a resample has one class only.
    """
    rng = np.random.default_rng(seed)
    count = len(labels)
    parts = []
    for start in range(0, replicates, _CHUNK):
        drawn = rng.integers(count, size=(min(_CHUNK, replicates - start), count))
        weights = np.stack([np.bincount(row, minlength=count) for row in drawn])
        parts.append(_weighted_scores(labels, probabilities, weights.astype(np.float64)))
    return {name: np.concatenate([part[name] for part in parts]) for name in METRICS}


def interval(replicates: Float[np.ndarray, " R"]) -> tuple[float, float]:
    """Percentile interval (95 %); NaN replicates are left out."""
    finite = replicates[np.isfinite(replicates)]
    if not finite.size:
        return float("nan"), float("nan")
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def _scored_classes(classes: int) -> list[int]:
    return [1] if classes == 2 else list(range(classes))


def _weighted_scores(
    labels: Int[np.ndarray, " N"],
    probabilities: Float[np.ndarray, "N C"],
    weights: Float[np.ndarray, "R N"],
) -> dict[str, Float[np.ndarray, " R"]]:
    classes = probabilities.shape[1]
    cell = labels * classes + probabilities.argmax(axis=1)
    confusion = (weights @ np.eye(classes * classes)[cell]).reshape(-1, classes, classes)
    areas = np.stack(
        [_auroc(labels == c, probabilities[:, c], weights) for c in _scored_classes(classes)]
    )
    known = np.isfinite(areas)
    with np.errstate(invalid="ignore"):
        auroc = np.where(known, areas, 0.0).sum(axis=0) / known.sum(axis=0)
    correct = np.trace(confusion, axis1=1, axis2=2)
    return {
        "mcc": _mcc(confusion),
        "auroc": auroc,
        "accuracy": correct / confusion.sum(axis=(1, 2)),
    }


def _mcc(confusion: Float[np.ndarray, "R C C"]) -> Float[np.ndarray, " R"]:
    """Multi-class Matthews correlation (Gorodkin 2004); 0 where a margin is constant."""
    true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
    total = true.sum(axis=1)
    covariance = np.trace(confusion, axis1=1, axis2=2) * total - (true * predicted).sum(axis=1)
    spread = (total**2 - (true**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
    return np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1.0)), 0.0)


def _auroc(
    positive: Bool[np.ndarray, " N"],
    score: Float[np.ndarray, " N"],
    weights: Float[np.ndarray, "R N"],
) -> Float[np.ndarray, " R"]:
    """Share of (positive, negative) pairs in the right order, ties counting one half."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) > 0]))
    weights, positive = weights[:, order], positive[order]
    above = np.add.reduceat(weights * positive, starts, axis=1)
    below = np.add.reduceat(weights * ~positive, starts, axis=1)
    pairs = above.sum(axis=1) * below.sum(axis=1)
    won = ((np.cumsum(below, axis=1) - below / 2) * above).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(pairs > 0, won / pairs, np.nan)
