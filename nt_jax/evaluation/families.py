"""A checkpoint and its controls on one task: the families of a probe result.

| family | variants | features |
|---|---|---|
| trained | layers | pooled embeddings of the checkpoint |
| random init | layers | the same of a fresh initialisation of the same architecture |
| k-mers | k | k-mer frequencies |
| CNN | one | none: it is trained on the sequences |

All variants are scored, but which one speaks for its family is decided by cross-validation within
the training sequences, never by the test scores: with a given split once, in k-fold
cross-validation anew in every fold. Differences are paired bootstraps between those chosen ones.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from nt_jax.evaluation import metrics, search
from nt_jax.evaluation.baselines import KMERS, kmer_frequencies
from nt_jax.evaluation.cnn import fit_cnn
from nt_jax.evaluation.controls import kept_fits
from nt_jax.evaluation.embed import Pooling
from nt_jax.evaluation.embeddings import cached_layers, parameters_digest
from nt_jax.evaluation.loading import LoadedModel, random_like
from nt_jax.evaluation.search import Fits, Problem
from nt_jax.evaluation.tasks import Fold, Task

KMER, CNN = "k-mers", "CNN"
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """Everything besides checkpoint and task that a result depends on."""

    layers: tuple[int, ...]
    """Layers probed, 1-based."""
    folds: int = 10
    """Outer folds where a task has no test split."""
    seed: int = 0
    """Seed of folds, subsampling, bootstrap and of the random initialisation."""
    max_sequences: int = 0
    """Most sequences of each split; 0 is all."""
    head: str = "logistic"
    """Name in `search.HEADS`."""
    pooling: Pooling = "mean"
    """Pooling of token embeddings; mean and max leave `<cls>` and pads out."""
    kmers: tuple[int, ...] = KMERS
    """k of the k-mer frequencies, in bases."""
    inner_folds: int = search.INNER_FOLDS
    """Folds of the inner cross-validation."""
    strengths: tuple[float, ...] = search.STRENGTHS
    """Grid of C."""
    mlp_draws: int = search.MLP_DRAWS
    """Draws of an MLP's hyper-parameters."""
    replicates: int = metrics.REPLICATES
    """Bootstrap resamples."""


class Source(NamedTuple):
    """A family before it is fitted."""

    name: str
    unit: str
    fit: Callable[[], Fits]
    constant: dict[str, Any] | None
    """All that the fits depend on besides task and settings; None: they are not kept."""


def compare(
    loaded: LoadedModel,
    task: Task,
    folds: list[Fold],
    settings: ProbeSettings,
    out: pathlib.Path,
    cache: pathlib.Path | None,
    say: Say,
) -> dict[str, Any]:
    """Scores of all families, as plain values: {"families": [...], "differences": [...]}."""
    sequences, problem = problem_of(task, folds, settings.seed)
    for fold in folds:
        # Refused here rather than behind an hour of embedding.
        search.inner_folds(problem, fold)
    families, measured = [], []
    for source in _sources(loaded, task.name, sequences, problem, settings, cache, say):
        fits = fits_of(source, task, settings, out)
        family, scores = _family(source, fits, problem, settings)
        families.append(family)
        measured.append(scores)
    differences = [
        {"against": family["name"], **metrics.differences(measured[0], scores)}
        for family, scores in zip(families[1:], measured[1:], strict=True)
    ]
    return {"families": families, "differences": differences}


def problem_of(task: Task, folds: list[Fold], seed: int) -> tuple[list[str], Problem]:
    """The sequences of a task, training before test, and what is to be predicted of them."""
    parts = [task.train] if task.test is None else [task.train, task.test]
    problem = Problem(
        kind=task.kind,
        truth=np.concatenate([split.labels for split in parts]),
        classes=len(task.classes),
        groups=search.row_groups(task),
        folds=folds,
        seed=seed,
    )
    return [sequence for split in parts for sequence in split.sequences], problem


def fits_of(source: Source, task: Task, settings: ProbeSettings, out: pathlib.Path) -> Fits:
    """The fits of a family; those that know no checkpoint are kept in `out`."""
    if source.constant is None:
        return source.fit()
    key = {"task": task.fingerprint, "settings": dataclasses.asdict(settings)}
    return kept_fits(out, {"family": source.name, "of": source.constant, **key}, source.fit)


def _sources(
    loaded: LoadedModel,
    task: str,
    sequences: Sequence[str],
    problem: Problem,
    settings: ProbeSettings,
    cache: pathlib.Path | None,
    say: Say,
) -> Iterator[Source]:
    """One after the other: features of one family are in memory at a time."""

    def searched(name: str, features: Callable[[], dict[int, np.ndarray]]) -> Callable[[], Fits]:
        return _searched(task, name, "layer", features, problem, settings, say)

    def embedded(
        model: LoadedModel, name: str, folder: pathlib.Path | None
    ) -> Callable[[], dict[int, np.ndarray]]:
        def features() -> dict[int, np.ndarray]:
            say(f"{task}: embedding {len(sequences):,} sequences, {name}")
            return cached_layers(model, sequences, settings.layers, folder, settings.pooling)

        return features

    fit = searched("trained", embedded(loaded, "trained", cache))
    yield Source("trained", "layer", fit, None)
    untrained = random_like(loaded, settings.seed)
    constant = {
        "model": dataclasses.asdict(loaded.config.model),
        "tokenizer": dataclasses.asdict(loaded.config.tokenizer),
        "context": loaded.context,
        "parameters": parameters_digest(untrained),
    }
    fit = searched("random init", embedded(untrained, "random init", None))
    yield Source("random init", "layer", fit, constant)
    yield from sequence_controls(task, sequences, problem, settings, say)


def sequence_controls(
    task: str, sequences: Sequence[str], problem: Problem, settings: ProbeSettings, say: Say
) -> Iterator[Source]:
    """The controls that know no model: k-mers with the head of the probe, and the CNN.

    `sequences` are those of all rows of `problem`; of `settings` the head and `kmers` are read.
    `task` is the name that `say` hears with every variant or fold that is fitted.
    """
    metric = metrics.SCORERS[problem.kind].names[0]

    def counted() -> dict[int, np.ndarray]:
        return {k: kmer_frequencies(sequences, k) for k in settings.kmers}

    def trained_on_sequences() -> Fits:
        def finished(fold: int, inner: float) -> None:
            say(f"{task}: {CNN}, fold {fold + 1}: inner {metric} {inner:.3f}")

        return {0: fit_cnn(sequences, problem, finished)}

    fit = _searched(task, KMER, "k", counted, problem, settings, say)
    yield Source(KMER, "k", fit, {})
    yield Source(CNN, "network", trained_on_sequences, {})


def _searched(
    task: str,
    name: str,
    unit: str,
    features: Callable[[], dict[int, np.ndarray]],
    problem: Problem,
    settings: ProbeSettings,
    say: Say,
) -> Callable[[], Fits]:
    metric = metrics.SCORERS[problem.kind].names[0]

    def finished(variant: int, inner: float) -> None:
        say(f"{task}: {name}, {unit} {variant}: inner {metric} {inner:.3f}")

    return lambda: search.fit_all(features(), problem, search.HEADS[settings.head](), finished)


def _family(
    source: Source, fits: Fits, problem: Problem, settings: ProbeSettings
) -> tuple[dict[str, Any], metrics.Measured]:
    """Scores of all variants, and those of the one chosen within training."""
    folds = problem.folds
    best = search.choose(fits)
    chosen = search.join(folds, [fits[v][fold] for fold, v in enumerate(best)])
    measured = _measured(problem, chosen, settings)
    variants = []
    for variant, row in fits.items():
        entry = _measured(problem, search.join(folds, row), settings).entries
        variants.append(
            {
                source.unit: variant,
                **entry,
                "inner": search.inner_score(row),
                "hyper": [fit.chosen for fit in row],
                "not_converged": sum(not fit.converged for fit in row),
                "by_fold": search.scores_by_fold(problem, [fit.prediction for fit in row]),
            }
        )
    family = {
        "name": source.name,
        "unit": source.unit,
        "chosen": {source.unit: best, **measured.entries},
        "variants": variants,
    }
    return family, measured


def _measured(
    problem: Problem, prediction: np.ndarray, settings: ProbeSettings
) -> metrics.Measured:
    truth = problem.truth[search.held_out_rows(problem.folds)]
    scorer = metrics.SCORERS[problem.kind]
    # The same seed for all: resamples are shared, differences are paired.
    return metrics.measure(scorer, truth, prediction, settings.seed, settings.replicates)
