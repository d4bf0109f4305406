"""Standardised logistic regression with nested cross-validation.

Everything that is chosen (the strength of the regularisation here, the layer in `probe`) is
chosen by an inner cross-validation over training sequences; held-out sequences are only scored.

N is the number of training sequences, M of held-out ones, X of features, C of classes.
"""

import dataclasses
import os
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.parallel import Parallel, delayed
from threadpoolctl import threadpool_limits

from nt_jax.evaluation.tasks.folds import Fold, make_folds

__all__ = ["Fit", "Fold", "fit", "fit_all", "held_out_rows", "inner_mcc", "join", "make_folds"]

STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Grid of C, the inverse regularisation, for standardised features."""
INNER_FOLDS = 5
MAX_ITERATIONS = 1000
MOST_THREADS = 8
"""Fits at a time: each one holds a few copies of its features."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """One fitted fold."""

    probabilities: Float[np.ndarray, "M C"]
    """Of the held-out sequences."""
    inner_mcc: float
    """Mean MCC of the inner cross-validation at the chosen strength."""
    strength: float
    """Chosen C."""
    converged: bool
    """Whether the final fit met its tolerance within `MAX_ITERATIONS`."""


def fit_all(
    features: dict[int, Float[np.ndarray, "rows X"]],
    labels: Int[np.ndarray, " rows"],
    folds: Sequence[Fold],
    seed: int,
    finished: Callable[[int, float], None] = lambda variant, inner_mcc: None,
) -> dict[int, list[Fit]]:
    """`fit` for every variant of the features and every fold: {variant: one Fit a fold}.

    `finished` hears each variant with its inner MCC, averaged over the folds.
    """
    fits: dict[int, list[Fit]] = {variant: [] for variant in features}
    jobs = [(variant, fold) for variant in features for fold in folds]
    pool = Parallel(
        n_jobs=min(MOST_THREADS, os.cpu_count() or 1), prefer="threads", return_as="generator"
    )
    # One thread of linear algebra a fit: these problems are too small to share, and threads that
    # wait for each other cost ten times the work.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        # Counted instead, from the iterations of the fit that is used.
        warnings.simplefilter("ignore", ConvergenceWarning)
        done = pool(delayed(fit)(features[variant], labels, fold, seed) for variant, fold in jobs)
        for (variant, _), result in zip(jobs, done, strict=True):
            fits[variant].append(result)
            if len(fits[variant]) == len(folds):
                finished(variant, inner_mcc(fits[variant]))
    return fits


def fit(
    features: Float[np.ndarray, "rows X"], labels: Int[np.ndarray, " rows"], fold: Fold, seed: int
) -> Fit:
    """Standardises, searches C on the training rows, refits and predicts the held-out rows."""
    smallest = int(np.unique(labels[fold.train], return_counts=True)[1].min())
    inner = StratifiedKFold(max(2, min(INNER_FOLDS, smallest)), shuffle=True, random_state=seed)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS)),
        {"logisticregression__C": list(STRENGTHS)},
        scoring="matthews_corrcoef",
        cv=inner,
        error_score="raise",
    )
    search.fit(features[fold.train], labels[fold.train])
    model = search.best_estimator_[-1]
    return Fit(
        probabilities=search.predict_proba(features[fold.test]),
        inner_mcc=float(search.best_score_),
        strength=float(search.best_params_["logisticregression__C"]),
        converged=bool(np.max(model.n_iter_) < MAX_ITERATIONS),
    )


def inner_mcc(fits: Sequence[Fit]) -> float:
    """Inner MCC of one variant, averaged over the folds."""
    return float(np.mean([fit.inner_mcc for fit in fits]))


def held_out_rows(folds: Sequence[Fold]) -> Int[np.ndarray, " M"]:
    """Rows that `join` orders its predictions by."""
    return np.sort(np.concatenate([fold.test for fold in folds]))


def join(folds: Sequence[Fold], fits: Sequence[Fit]) -> Float[np.ndarray, "M C"]:
    """Predictions of all held-out sequences, one fit a fold, in the order of the rows."""
    rows = np.concatenate([fold.test for fold in folds])
    return np.concatenate([fit.probabilities for fit in fits])[np.argsort(rows)]
