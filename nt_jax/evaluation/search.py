"""Nested cross-validation: what is chosen is chosen within the training sequences.

For every outer fold, each candidate (a head with its hyper-parameters) is fitted on every inner
split of the training rows and scored on the rest; the candidate with the best mean speaks for the
fold, fitted on all its training rows. Held-out sequences are only scored. All fits of one head run
as one batch of problems (`heads.solve`).

| head | candidates |
|---|---|
| logistic (values: ridge) | C in `STRENGTHS` |
| mlp | `MLP_DRAWS` seeded draws: see `mlps` |
| both | all of these |

The paper searched about 100 settings for each of its cells (FACTS, inferred) and does not list
them; this grid is ours. N is the number of training rows, M of held-out ones, X of features, C of
classes.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from nt_jax.errors import InputError
from nt_jax.evaluation import heads
from nt_jax.evaluation.metrics import SCORERS
from nt_jax.evaluation.tasks import Fold, Kind, Task
from nt_jax.evaluation.tasks.folds import splits

STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Grid of C, the inverse regularisation, for standardised features."""
INNER_FOLDS = 5
MLP_DRAWS = 8


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A head with its hyper-parameters."""

    how: heads.Solve
    hyper: Mapping[str, float]
    width: int = 1
    """Widest hidden layer."""
    layers: int = 0
    """Hidden layers."""

    def text(self) -> str:
        """For tables: `C 0.01`, `2 x 128, learning_rate 0.003, decay 0.1`."""
        parts = [f"{self.layers} x {self.width}"] if self.layers else []
        return ", ".join([*parts, *(f"{name} {value:.2g}" for name, value in self.hyper.items())])


def logistic() -> list[Candidate]:
    """The linear head with every C."""
    return [Candidate(heads.linear, {"C": strength}) for strength in STRENGTHS]


def mlps(draws: int = MLP_DRAWS, seed: int = 0) -> list[Candidate]:
    """Draws of an MLP: one or two hidden layers of 32 or 128 units, taking turns; learning rate
    1e-4 to 1e-2 and AdamW decay 1e-4 to 1, log-uniform.
    """
    rng = np.random.default_rng(seed)
    shapes = [(32,), (128,), (32, 32), (128, 128)]
    found = []
    for draw in range(draws):
        hidden = shapes[draw % len(shapes)]
        hyper = {
            "learning_rate": 10 ** rng.uniform(-4, -2),
            "decay": 10 ** rng.uniform(-4, 0),
        }
        found.append(Candidate(heads.mlp(hidden), hyper, hidden[0], len(hidden)))
    return found


HEADS: Mapping[str, Callable[[], list[Candidate]]] = {
    "logistic": logistic,
    "mlp": mlps,
    "both": lambda: [*logistic(), *mlps()],
}


@dataclasses.dataclass(frozen=True)
class Fit:
    """One fitted fold."""

    prediction: Float[np.ndarray, "M C"] | Float[np.ndarray, " M"]
    """Of the held-out sequences: probabilities, or values."""
    inner: float
    """Mean score of the inner cross-validation of the chosen candidate (the kind's first)."""
    chosen: str
    """The chosen candidate, in words."""
    converged: bool
    """Whether the fit that is used met its tolerance."""


Fits = dict[int, list[Fit]]


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """What is to be predicted; rows are numbered through training, then test."""

    kind: Kind
    truth: np.ndarray
    """As `Split.labels`, of all rows."""
    classes: int
    groups: Sequence[str] | None
    """Of all rows, if the training rows have any; inner folds keep them whole."""
    folds: Sequence[Fold]
    seed: int


def fit_all(
    features: Mapping[int, Float[np.ndarray, "rows X"]],
    problem: Problem,
    candidates: Sequence[Candidate],
    finished: Callable[[int, float], None] = lambda variant, inner: None,
) -> Fits:
    """Nested cross-validation of every variant of the features: {variant: one Fit a fold}.

    `finished` hears each variant with its inner score, averaged over the folds.
    """
    fits: Fits = {}
    for variant, values in features.items():
        fits[variant] = _fit_folds(values, problem, candidates)
        finished(variant, inner_score(fits[variant]))
    return fits


def row_groups(task: Task) -> list[str] | None:
    """Groups of the rows of a `Problem`, those of training first; None where training has none.

    A given test split may have none of its own: none of its rows are ever in an inner fold.
    """
    if task.train.groups is None:
        return None
    if task.test is None:
        return list(task.train.groups)
    return [*task.train.groups, *(task.test.groups or [""] * len(task.test))]


def inner_folds(problem: Problem, fold: Fold, most: int = INNER_FOLDS) -> list[Fold]:
    """Splits of a fold's training rows: as many as its scarcest class or its groups allow.

    Raises InputError where all of them are of one group.
    """
    truth = problem.truth[fold.train]
    groups = None if problem.groups is None else [problem.groups[row] for row in fold.train]
    if problem.kind == "classes":
        most = min(most, int(np.unique(truth, return_counts=True)[1].min()))
    if groups is not None:
        most = min(most, len(set(groups)))
        if len(set(groups)) < 2:
            raise InputError(
                f"all {len(groups):,} training sequences are of the group {groups[0]!r}: "
                "hyper-parameters are chosen between groups, at least 2 are needed; drop the "
                "column 'group' or name smaller groups"
            )
    found = splits(problem.kind, truth, groups, max(2, most), problem.seed)
    return [Fold(fold.train[part.train], fold.train[part.test]) for part in found]


def _fit_folds(
    features: Float[np.ndarray, "rows X"], problem: Problem, candidates: Sequence[Candidate]
) -> list[Fit]:
    inner = [inner_folds(problem, fold) for fold in problem.folds]
    # Of each outer fold: its inner splits, and last all of its training rows.
    parts = [
        (outer, part, part is fold)
        for outer, fold in enumerate(problem.folds)
        for part in [*inner[outer], fold]
    ]
    targets = heads.targets_of(problem.kind, problem.truth, problem.classes)
    rows = np.zeros((len(parts), len(features)), bool)
    for number, (_, part, _) in enumerate(parts):
        rows[number, part.train] = True

    scores = np.zeros((len(problem.folds), len(candidates)))
    best: dict[int, tuple[float, Fit]] = {}
    # Candidates with one compiled program are one batch.
    for how in dict.fromkeys(candidate.how for candidate in candidates):
        mine = [n for n, candidate in enumerate(candidates) if candidate.how is how]
        hyper = {
            name: np.tile([candidates[n].hyper[name] for n in mine], len(parts))
            for name in candidates[mine[0]].hyper
        }
        solved = heads.solve(
            how,
            problem.kind,
            features,
            targets,
            np.repeat(rows, len(mine), axis=0),
            hyper,
            np.full(len(parts) * len(mine), problem.seed),
            max(candidates[n].width for n in mine),
        )
        jobs = [(*part, n) for part in parts for n in mine]
        for position, (outer, part, final, n) in enumerate(jobs):
            outputs = solved.predictions[position][part.test]
            prediction = heads.predictions_of(problem.kind, outputs)
            if not final:
                scores[outer, n] += _score(problem, part, prediction) / len(inner[outer])
            elif outer not in best or scores[outer, n] > best[outer][0]:
                fit = Fit(
                    prediction,
                    float(scores[outer, n]),
                    candidates[n].text(),
                    bool(solved.converged[position]),
                )
                best[outer] = scores[outer, n], fit
    return [best[outer][1] for outer in range(len(problem.folds))]


def _score(problem: Problem, part: Fold, prediction: np.ndarray) -> float:
    """The kind's first score; an undefined one (a constant prediction) is as bad as chance."""
    scorer = SCORERS[problem.kind]
    weights = np.ones((1, len(part.test)))
    scores = scorer.weighted(problem.truth[part.test], prediction, weights)
    value = float(scores[scorer.names[0]][0])
    return value if math.isfinite(value) else 0.0


def inner_score(fits: Sequence[Fit]) -> float:
    """Inner score of one variant, averaged over the folds."""
    return float(np.mean([fit.inner for fit in fits]))


def held_out_rows(folds: Sequence[Fold]) -> Int[np.ndarray, " M"]:
    """Rows that `join` orders its predictions by."""
    return np.sort(np.concatenate([fold.test for fold in folds]))


def choose(fits: Fits) -> list[int]:
    """The variant with the best inner score, fold by fold; of equals the first."""
    folds = range(len(next(iter(fits.values()))))
    return [max(fits, key=lambda variant: fits[variant][fold].inner) for fold in folds]


def join(folds: Sequence[Fold], fits: Sequence[Fit]) -> np.ndarray:
    """Predictions of all held-out sequences, one fit a fold, in the order of the rows."""
    rows = np.concatenate([fold.test for fold in folds])
    return np.concatenate([fit.prediction for fit in fits])[np.argsort(rows)]


def parted(folds: Sequence[Fold], joined: np.ndarray) -> list[np.ndarray]:
    """The inverse of `join`: the predictions of every fold, in the order of its test rows."""
    rows = held_out_rows(folds)
    return [joined[np.searchsorted(rows, fold.test)] for fold in folds]


def scores_by_fold(
    problem: Problem, predictions: Sequence[np.ndarray]
) -> dict[str, list[float | None]]:
    """Every score on the held-out rows of each fold; None where it is not defined."""
    scorer = SCORERS[problem.kind]
    found = [
        scorer.scores(problem.truth[fold.test], prediction)
        for fold, prediction in zip(problem.folds, predictions, strict=True)
    ]
    return {
        name: [float(s[name]) if math.isfinite(s[name]) else None for s in found]
        for name in scorer.names
    }
