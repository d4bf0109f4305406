"""Linear probes on frozen embeddings, each score beside its controls.

For every chosen layer: mean embedding -> standardisation -> logistic regression. The same is done
with a random initialisation of the same architecture and with k-mer frequencies. These three are
the families of a result; a family's variants are its layers, or its k.

All variants are scored and printed, but which variant speaks for its family is decided by cross-
validation within the training sequences, never by the test scores: with a given split once, in
k-fold cross-validation anew in every fold. The differences between families are paired bootstraps
between those chosen variants.
"""

import dataclasses
import hashlib
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from nt_jax.checksums import checksums
from nt_jax.errors import InputError
from nt_jax.evaluation import classifier, metrics
from nt_jax.evaluation.baselines import KMERS, kmer_frequencies
from nt_jax.evaluation.classifier import Fit, Fold
from nt_jax.evaluation.controls import Fits, kept_fits
from nt_jax.evaluation.figure import save_figure
from nt_jax.evaluation.loading import LoadedModel, load, random_like
from nt_jax.evaluation.summary import RESULTS, overview, read_results, to_markdown
from nt_jax.evaluation.tasks import Task, read_task, subsample
from nt_jax.files import owning, write_atomically

TABLES, FIGURE = "probe.md", "probe.png"
DEFAULT_LAYERS = 10
ALL_LAYERS_UP_TO = 12
SCORER = metrics.SCORERS["classes"]

Features = dict[int, Float[np.ndarray, "rows X"]]


class _Source(NamedTuple):
    """A family before it is fitted."""

    name: str
    unit: str
    features: Callable[[], Features]
    """{variant: features}"""
    constant: dict[str, Any] | None
    """All that the features depend on besides task and settings; None: they are not kept."""


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
    kmers: tuple[int, ...] = KMERS
    """k of the k-mer frequencies, in bases."""
    inner_folds: int = classifier.INNER_FOLDS
    """Folds of the inner cross-validation."""
    strengths: tuple[float, ...] = classifier.STRENGTHS
    """Grid of C."""
    replicates: int = metrics.REPLICATES
    """Bootstrap resamples."""
    pooling: str = "mean"
    """Pooling of token embeddings, without `<cls>` and pads."""


def default_layers(num_layers: int) -> tuple[int, ...]:
    """All layers of a model of up to 12, else 10 evenly spread ones with the first and the last."""
    count = num_layers if num_layers <= ALL_LAYERS_UP_TO else DEFAULT_LAYERS
    return tuple(int(layer) for layer in np.linspace(1, num_layers, count).round())


def say(text: str) -> None:
    """Progress for people: a line on standard error."""
    print(text, file=sys.stderr, flush=True)


def probe(
    checkpoint: str | pathlib.Path,
    tasks: Sequence[str | pathlib.Path],
    out: pathlib.Path,
    *,
    layers: Sequence[int] | None = None,
    folds: int = 10,
    seed: int = 0,
    max_sequences: int = 0,
    progress: Callable[[str], None] = say,
) -> list[dict[str, Any]]:
    """Probes `DIR[@STEP]` on every task and writes probe.json, probe.md and probe.png into `out`.

    Each finished task is on disk at once. The same call again computes only what is missing;
    a task whose parameters, settings or sequences differ from those on disk is computed again and
    replaces its entry. Entries of other steps and tasks stay. Returns the results of `tasks`, in
    their order. Raises InputError for a bad checkpoint, task, layer or number.
    """
    parts = [read_task(task) for task in tasks]
    return probe_model(
        load(checkpoint),
        parts,
        pathlib.Path(out),
        checkpoint=str(checkpoint),
        layers=layers,
        folds=folds,
        seed=seed,
        max_sequences=max_sequences,
        progress=progress,
    )


def probe_model(
    loaded: LoadedModel,
    tasks: Sequence[Task],
    out: pathlib.Path,
    *,
    checkpoint: str,
    layers: Sequence[int] | None = None,
    folds: int = 10,
    seed: int = 0,
    max_sequences: int = 0,
    progress: Callable[[str], None] = say,
) -> list[dict[str, Any]]:
    """`probe` for a model and tasks in memory; `checkpoint` is the name that is written down."""
    _check(tasks, max_sequences)
    chosen = loaded.check_layers(layers if layers else default_layers(loaded.num_layers))
    settings = ProbeSettings(
        layers=tuple(sorted(set(chosen))), folds=folds, seed=seed, max_sequences=max_sequences
    )
    tasks = [subsample(task, max_sequences, seed) for task in tasks]
    folds_of = {task.name: classifier.make_folds(task, folds, seed) for task in tasks}
    parameters = _digest(checksums(loaded.params))

    out.mkdir(parents=True, exist_ok=True)
    with owning(out):
        return _probe_tasks(
            loaded, tasks, folds_of, settings, parameters, out, checkpoint, progress
        )


def _probe_tasks(
    loaded: LoadedModel,
    tasks: Sequence[Task],
    folds_of: dict[str, list[Fold]],
    settings: ProbeSettings,
    parameters: str,
    out: pathlib.Path,
    checkpoint: str,
    progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    stored = read_results(out / RESULTS)
    results = []
    for task in tasks:
        key = {
            "task": task.name,
            "step": loaded.step,
            "parameters": parameters,
            "fingerprint": task.fingerprint,
            # Through JSON, so that a key read back compares equal.
            "settings": json.loads(json.dumps(dataclasses.asdict(settings))),
        }
        result = next((old for old in stored if all(old.get(k) == key[k] for k in key)), None)
        if result is None:
            progress(f"{task.name}: {task.audit.line()}")
            start = time.perf_counter()
            result = {**key, "checkpoint": checkpoint}
            result |= _probe_task(loaded, task, folds_of[task.name], settings, out, progress)
            result["seconds"] = round(time.perf_counter() - start, 1)
            stored = [
                old
                for old in stored
                if (old.get("task"), old.get("step")) != (task.name, loaded.step)
            ]
            stored.append(result)
            write_atomically(out / RESULTS, json.dumps(stored, indent=1))
        else:
            progress(f"{task.name}: already done at step {loaded.step} with these settings")
        results.append(result)
    # From everything on disk: tables and figure are whole again after any interruption.
    write_atomically(out / TABLES, to_markdown(stored))
    write_atomically(out / FIGURE, save_figure(stored))
    progress(f"{overview(results)}\nwritten: {out / TABLES}, {RESULTS}, {FIGURE}")
    return results


def _check(tasks: Sequence[Task], max_sequences: int) -> None:
    if not tasks:
        raise InputError("no task to probe")
    if max_sequences < 0:
        raise InputError(f"max_sequences={max_sequences}: 0 (all) or more")
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"two tasks are named {name!r}; rename one or probe them into two folders"
            )


def _probe_task(
    loaded: LoadedModel,
    task: Task,
    folds: list[Fold],
    settings: ProbeSettings,
    out: pathlib.Path,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    splits = [task.train] if task.test is None else [task.train, task.test]
    sequences = [sequence for split in splits for sequence in split.sequences]
    labels = np.concatenate([split.labels for split in splits])
    held_out = labels[classifier.held_out_rows(folds)]

    families, replicates = [], {}
    for source in _sources(loaded, sequences, settings, progress):
        name, unit = source.name, source.unit

        def fit(source: _Source = source) -> Fits:
            def finished(variant: int, inner: float) -> None:
                kind = f"{source.name}, {source.unit} {variant}"
                progress(f"{task.name}: {kind}: inner MCC {inner:.3f}")

            return classifier.fit_all(source.features(), labels, folds, settings.seed, finished)

        if source.constant is None:
            fits = fit()
        else:
            key = {"task": task.fingerprint, "settings": dataclasses.asdict(settings)}
            fits = kept_fits(out, {"family": name, "of": source.constant, **key}, fit)
        family, replicates[name] = _family(name, unit, fits, folds, labels, held_out, settings)
        families.append(family)
    trained = families[0]
    differences = []
    for other in families[1:]:
        entry: dict[str, Any] = {"against": other["name"]}
        for metric in SCORER.names:
            ours, theirs = (family["chosen"][metric]["value"] for family in (trained, other))
            gap = np.nan if ours is None or theirs is None else ours - theirs
            paired = replicates[trained["name"]][metric] - replicates[other["name"]][metric]
            entry[metric] = _score(gap, *metrics.interval(paired))
        differences.append(entry)
    return {
        "classes": list(task.classes),
        "simulated": task.simulated,
        "split": "given" if task.test is not None else f"{len(folds)}-fold",
        "train": len(task.train),
        "scored": len(held_out),
        "audit": dataclasses.asdict(task.audit),
        "families": families,
        "differences": differences,
    }


def _sources(
    loaded: LoadedModel,
    sequences: list[str],
    settings: ProbeSettings,
    progress: Callable[[str], None],
) -> Iterator[_Source]:
    """One after the other: features of one family are in memory at a time."""

    def embedded(model: LoadedModel, name: str) -> Callable[[], Features]:
        def features() -> Features:
            progress(f"embedding {len(sequences):,} sequences, {name}")
            return model.embed_layers(sequences, settings.layers)

        return features

    def counted() -> Features:
        return {k: kmer_frequencies(sequences, k) for k in settings.kmers}

    yield _Source("trained", "layer", embedded(loaded, "trained"), None)
    untrained = random_like(loaded, settings.seed)
    constant = {
        "model": dataclasses.asdict(loaded.config.model),
        "tokenizer": dataclasses.asdict(loaded.config.tokenizer),
        "context": loaded.context,
        "parameters": _digest(checksums(untrained.params)),
    }
    yield _Source("random init", "layer", embedded(untrained, "random init"), constant)
    yield _Source("k-mers", "k", counted, {})


def _family(
    name: str,
    unit: str,
    fits: dict[int, list[Fit]],
    folds: list[Fold],
    labels: Int[np.ndarray, " rows"],
    held_out: Int[np.ndarray, " M"],
    settings: ProbeSettings,
) -> tuple[dict[str, Any], dict[str, Float[np.ndarray, " R"]]]:
    """Scores of all variants, and of the one chosen within training; its bootstrap replicates."""
    inner = {variant: [fit.inner_mcc for fit in row] for variant, row in fits.items()}
    best = [max(inner, key=lambda variant: inner[variant][fold]) for fold in range(len(folds))]
    chosen = classifier.join(folds, [fits[v][fold] for fold, v in enumerate(best)])
    scored, replicates = _scored(held_out, chosen, settings)
    variants = []
    for variant, row in fits.items():
        entry, _ = _scored(held_out, classifier.join(folds, row), settings)
        variants.append(
            {
                unit: variant,
                **entry,
                "inner_mcc": classifier.inner_mcc(row),
                "strengths": [fit.strength for fit in row],
                "not_converged": sum(not fit.converged for fit in row),
                "fold_mcc": [
                    SCORER.scores(labels[fold.test], fit.probabilities)["mcc"]
                    for fold, fit in zip(folds, row, strict=True)
                ],
            }
        )
    family = {"name": name, "unit": unit, "chosen": {unit: best, **scored}, "variants": variants}
    return family, replicates


def _scored(
    labels: Int[np.ndarray, " M"],
    probabilities: Float[np.ndarray, "M C"],
    settings: ProbeSettings,
) -> tuple[dict[str, Any], dict[str, Float[np.ndarray, " R"]]]:
    values = SCORER.scores(labels, probabilities)
    # The same seed for all: resamples are shared, differences are paired.
    replicates = metrics.bootstrap(
        SCORER, labels, probabilities, settings.seed, settings.replicates
    )
    scored = {name: _score(values[name], *metrics.interval(replicates[name])) for name in values}
    return scored, replicates


def _score(value: float, low: float, high: float) -> dict[str, float | None]:
    """JSON has no NaN: an undefined score is null."""
    entry = {"value": value, "low": low, "high": high}
    return {key: number if np.isfinite(number) else None for key, number in entry.items()}


def _digest(sums: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()
