"""Scores with bootstrap intervals, for every kind of truth that a task can have.

| kind | truth | prediction | scores |
|---|---|---|---|
| classes | int [N] | probabilities [N, C] | mcc, f1, accuracy, auroc, auprc |
| multilabel | bool [N, C] | probabilities [N, C] | the same, averaged over the labels |
| values | float [N] | float [N] | spearman, pearson, r2 |
| ranking | bool [N] | any score [N] | auroc, auprc |
| correlation | float [N] | any score [N] | spearman, pearson |

Point values are scikit-learn's and scipy's. The replicates are computed for many resamples at a
time from the weights with which each resample counts a row; two predictions scored with the same
seed on the same rows see the same resamples, so their replicates may be subtracted (paired
bootstrap). What is not defined is NaN: an area with one class only, a correlation of a constant.

C is the number of classes, N of rows, R of resamples.
"""

import types
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int
from sklearn import metrics as reference

REPLICATES = 1000
_CHUNK = 100
_WEIGHTS = 1 << 24
"""Weights held at a time: fewer resamples a chunk where there are many rows."""

Scores = dict[str, float]
Entry = dict[str, float | None]
"""`value`, `low` and `high`; None where undefined, as JSON has no NaN."""
Replicates = dict[str, Float[np.ndarray, " R"]]


class Scorer(NamedTuple):
    """How one kind of prediction is scored; the first of `names` is the one to rank by."""

    names: tuple[str, ...]
    scores: Callable[..., Scores]
    """(truth, prediction) -> scores."""
    weighted: Callable[..., Replicates]
    """(truth, prediction, weights [R, N]) -> the scores of R resamples."""


def bootstrap(
    scorer: Scorer,
    truth: np.ndarray,
    prediction: np.ndarray,
    seed: int,
    replicates: int = REPLICATES,
) -> Replicates:
    """The scores on `replicates` resamples of the N rows, drawn with replacement.

    What is drawn depends on `seed` and N alone.
    """
    rng = np.random.default_rng(seed)
    count = len(truth)
    chunk = max(1, min(_CHUNK, _WEIGHTS // count))
    parts = []
    for start in range(0, replicates, chunk):
        drawn = rng.integers(count, size=(min(chunk, replicates - start), count))
        weights = np.stack([np.bincount(row, minlength=count) for row in drawn])
        parts.append(scorer.weighted(truth, prediction, weights.astype(np.float64)))
    return {name: np.concatenate([part[name] for part in parts]) for name in scorer.names}


def interval(replicates: Float[np.ndarray, " R"]) -> tuple[float, float]:
    """Percentile interval (95 %); NaN replicates are left out."""
    finite = replicates[np.isfinite(replicates)]
    if not finite.size:
        return float("nan"), float("nan")
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


class Measured(NamedTuple):
    """Scores of one prediction with their intervals, and the replicates behind them."""

    entries: dict[str, Entry]
    replicates: Replicates


def measure(
    scorer: Scorer,
    truth: np.ndarray,
    prediction: np.ndarray,
    seed: int,
    replicates: int = REPLICATES,
) -> Measured:
    """All scores; with one seed for several predictions their differences are paired."""
    values = scorer.scores(truth, prediction)
    drawn = bootstrap(scorer, truth, prediction, seed, replicates)
    return Measured({name: _entry(values[name], drawn[name]) for name in scorer.names}, drawn)


def differences(ours: Measured, theirs: Measured) -> dict[str, Entry]:
    """Ours minus theirs for every score, with the interval of the paired resamples."""
    found = {}
    for name, drawn in ours.replicates.items():
        first, second = ours.entries[name]["value"], theirs.entries[name]["value"]
        gap = np.nan if first is None or second is None else first - second
        found[name] = _entry(gap, drawn - theirs.replicates[name])
    return found


def _entry(value: float, replicates: Float[np.ndarray, " R"]) -> Entry:
    numbers = zip(("value", "low", "high"), (value, *interval(replicates)), strict=True)
    return {name: float(x) if np.isfinite(x) else None for name, x in numbers}


def class_scores(labels: Int[np.ndarray, " N"], probabilities: Float[np.ndarray, "N C"]) -> Scores:
    """MCC, F1, accuracy, AUROC, AUPRC; the predicted class is the most probable one.

    Of two classes F1 and the areas are those of the second; of more, F1 is the mean over the
    classes that occur or are predicted (macro) and an area the mean of one class against the
    rest, over the classes that occur. MCC is 0 where it is not defined.
    """
    predicted = probabilities.argmax(axis=1)
    classes = probabilities.shape[1]
    several = len(np.unique(labels)) > 1
    f1 = reference.f1_score(
        labels, predicted, average="binary" if classes == 2 else "macro", zero_division=0.0
    )
    areas = [ranking_scores(labels == c, probabilities[:, c]) for c in _scored_classes(classes)]
    return {
        "mcc": float(reference.matthews_corrcoef(labels, predicted)) if several else 0.0,
        "f1": float(f1),
        "accuracy": float(reference.accuracy_score(labels, predicted)),
        "auroc": _known_mean([area["auroc"] for area in areas]),
        "auprc": _known_mean([area["auprc"] for area in areas]),
    }


def multilabel_scores(
    labels: Bool[np.ndarray, "N C"], probabilities: Float[np.ndarray, "N C"]
) -> Scores:
    """`class_scores` of every label, a label being present above 0.5, averaged over the labels."""
    each = [class_scores(*_one_label(labels, probabilities, c)) for c in range(labels.shape[1])]
    return {name: _known_mean([scores[name] for scores in each]) for name in each[0]}


def value_scores(values: Float[np.ndarray, " N"], predictions: Float[np.ndarray, " N"]) -> Scores:
    """Spearman, Pearson and the coefficient of determination."""
    constant = not np.ptp(values)
    return {
        **correlation_scores(values, predictions),
        "r2": float("nan") if constant else float(reference.r2_score(values, predictions)),
    }


def ranking_scores(positive: Bool[np.ndarray, " N"], score: Float[np.ndarray, " N"]) -> Scores:
    """Areas under the ROC curve and under precision and recall (average precision)."""
    if not 0 < np.count_nonzero(positive) < len(positive):
        return {"auroc": float("nan"), "auprc": float("nan")}
    return {
        "auroc": float(reference.roc_auc_score(positive, score)),
        "auprc": float(reference.average_precision_score(positive, score)),
    }


def correlation_scores(truth: Float[np.ndarray, " N"], score: Float[np.ndarray, " N"]) -> Scores:
    """Spearman's and Pearson's correlation."""
    if not (np.ptp(truth) and np.ptp(score)):
        return {"spearman": float("nan"), "pearson": float("nan")}
    return {
        "spearman": float(scipy.stats.spearmanr(truth, score).statistic),
        "pearson": float(scipy.stats.pearsonr(truth, score).statistic),
    }


def _scored_classes(classes: int) -> list[int]:
    return [1] if classes == 2 else list(range(classes))


def _one_label(
    labels: Bool[np.ndarray, "N C"], probabilities: Float[np.ndarray, "N C"], label: int
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, "N 2"]]:
    present = probabilities[:, label]
    return labels[:, label].astype(np.int64), np.stack([1.0 - present, present], axis=1)


def _known_mean(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _known_means(values: Float[np.ndarray, "K R"]) -> Float[np.ndarray, " R"]:
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)


def _weighted_classes(
    labels: Int[np.ndarray, " N"],
    probabilities: Float[np.ndarray, "N C"],
    weights: Float[np.ndarray, "R N"],
) -> Replicates:
    classes = probabilities.shape[1]
    cell = labels * classes + probabilities.argmax(axis=1)
    confusion = np.stack([np.bincount(cell, row, classes * classes) for row in weights])
    confusion = confusion.reshape(-1, classes, classes)
    areas = [
        _weighted_ranking(labels == c, probabilities[:, c], weights)
        for c in _scored_classes(classes)
    ]
    return {
        "mcc": _mcc(confusion),
        "f1": _f1(confusion),
        "accuracy": np.trace(confusion, axis1=1, axis2=2) / confusion.sum(axis=(1, 2)),
        "auroc": _known_means(np.stack([area["auroc"] for area in areas])),
        "auprc": _known_means(np.stack([area["auprc"] for area in areas])),
    }


def _weighted_labels(
    labels: Bool[np.ndarray, "N C"],
    probabilities: Float[np.ndarray, "N C"],
    weights: Float[np.ndarray, "R N"],
) -> Replicates:
    each = [
        _weighted_classes(*_one_label(labels, probabilities, c), weights)
        for c in range(labels.shape[1])
    ]
    return {name: _known_means(np.stack([part[name] for part in each])) for name in each[0]}


def _weighted_values(
    values: Float[np.ndarray, " N"],
    predictions: Float[np.ndarray, " N"],
    weights: Float[np.ndarray, "R N"],
) -> Replicates:
    mean = weights @ values / weights.sum(axis=1)
    spread = (weights * (values - mean[:, None]) ** 2).sum(axis=1)
    missed = weights @ (values - predictions) ** 2
    constant = _constant(values, weights)
    return {
        **_weighted_correlation(values, predictions, weights),
        "r2": np.where(constant, np.nan, 1.0 - missed / np.where(constant, 1.0, spread)),
    }


def _weighted_ranking(
    positive: Bool[np.ndarray, " N"],
    score: Float[np.ndarray, " N"],
    weights: Float[np.ndarray, "R N"],
) -> Replicates:
    """Ties count one half in the ROC; thresholds are the distinct scores, as in scikit-learn."""
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) != 0]))
    weights, positive = weights[:, order], positive[order]
    hits = np.add.reduceat(weights * positive, starts, axis=1)
    misses = np.add.reduceat(weights * ~positive, starts, axis=1)
    found, false = np.cumsum(hits, axis=1), np.cumsum(misses, axis=1)
    positives, negatives = found[:, -1], false[:, -1]
    won = (hits * (negatives[:, None] - false + misses / 2)).sum(axis=1)
    taken = found + false
    precision = found / np.where(taken > 0, taken, 1.0)
    both = (positives > 0) & (negatives > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "auroc": np.where(both, won / (positives * negatives), np.nan),
            "auprc": np.where(both, (hits * precision).sum(axis=1) / positives, np.nan),
        }


def _weighted_correlation(
    truth: Float[np.ndarray, " N"],
    score: Float[np.ndarray, " N"],
    weights: Float[np.ndarray, "R N"],
) -> Replicates:
    constant = _constant(truth, weights) | _constant(score, weights)
    shape = weights.shape
    pairs = {
        "spearman": (_ranks(truth, weights), _ranks(score, weights)),
        "pearson": (np.broadcast_to(truth, shape), np.broadcast_to(score, shape)),
    }
    return {
        name: np.where(constant, np.nan, _pearson(x, y, weights)) for name, (x, y) in pairs.items()
    }


def _ranks(
    values: Float[np.ndarray, " N"], weights: Float[np.ndarray, "R N"]
) -> Float[np.ndarray, "R N"]:
    """Rank of every row within each resample, ties sharing their mean rank."""
    order = np.argsort(values, kind="stable")
    new = np.concatenate([[True], np.diff(values[order]) != 0])
    group = np.cumsum(new) - 1
    size = np.add.reduceat(weights[:, order], np.flatnonzero(new), axis=1)
    rank = np.cumsum(size, axis=1) - (size - 1) / 2
    ranks = np.empty_like(weights)
    ranks[:, order] = rank[:, group]
    return ranks


def _pearson(
    x: Float[np.ndarray, "R N"], y: Float[np.ndarray, "R N"], weights: Float[np.ndarray, "R N"]
) -> Float[np.ndarray, " R"]:
    total = weights.sum(axis=1, keepdims=True)
    x = x - (weights * x).sum(axis=1, keepdims=True) / total
    y = y - (weights * y).sum(axis=1, keepdims=True) / total
    spread = np.sqrt((weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights * x * y).sum(axis=1) / spread


def _constant(
    values: Float[np.ndarray, " N"], weights: Float[np.ndarray, "R N"]
) -> Bool[np.ndarray, " R"]:
    """Whether a resample holds one value only: exactly, where sums would leave rounding."""
    drawn = weights > 0
    low = np.where(drawn, values, np.inf).min(axis=1)
    return low == np.where(drawn, values, -np.inf).max(axis=1)


def _mcc(confusion: Float[np.ndarray, "R C C"]) -> Float[np.ndarray, " R"]:
    """Multi-class Matthews correlation (Gorodkin 2004); 0 where a margin is constant."""
    true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
    total = true.sum(axis=1)
    covariance = np.trace(confusion, axis1=1, axis2=2) * total - (true * predicted).sum(axis=1)
    spread = (total**2 - (true**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
    return np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1.0)), 0.0)


def _f1(confusion: Float[np.ndarray, "R C C"]) -> Float[np.ndarray, " R"]:
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    named = confusion.sum(axis=2) + confusion.sum(axis=1)
    f1 = 2 * hits / np.where(named > 0, named, 1.0)
    if confusion.shape[1] == 2:
        return f1[:, 1]
    return f1.sum(axis=1) / (named > 0).sum(axis=1)


SCORERS: Mapping[str, Scorer] = types.MappingProxyType(
    {
        "classes": Scorer(
            ("mcc", "f1", "accuracy", "auroc", "auprc"), class_scores, _weighted_classes
        ),
        "multilabel": Scorer(
            ("mcc", "f1", "accuracy", "auroc", "auprc"), multilabel_scores, _weighted_labels
        ),
        "values": Scorer(("spearman", "pearson", "r2"), value_scores, _weighted_values),
        "ranking": Scorer(("auroc", "auprc"), ranking_scores, _weighted_ranking),
        "correlation": Scorer(("spearman", "pearson"), correlation_scores, _weighted_correlation),
    }
)
"""How each kind of the table above is scored."""
