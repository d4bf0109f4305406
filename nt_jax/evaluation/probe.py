"""Probes on frozen embeddings, each score beside its controls (`families`).

For every chosen layer: pooled embedding -> standardisation -> a head (`search`). Results lie in
OUT/probe.json, task by task; probe.md, probe.png and the tidy results.parquet are made of them.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nt_jax.errors import InputError, nearest
from nt_jax.evaluation import search
from nt_jax.evaluation.embed import Pooling
from nt_jax.evaluation.embeddings import parameters_digest
from nt_jax.evaluation.families import ProbeSettings, compare
from nt_jax.evaluation.figure import save_figure
from nt_jax.evaluation.leakage import known_overlap
from nt_jax.evaluation.loading import LoadedModel, load
from nt_jax.evaluation.results import write_rows
from nt_jax.evaluation.stored import RESULTS, read_results
from nt_jax.evaluation.summary import data_lines, overview, tidy, to_markdown
from nt_jax.evaluation.tasks import Fold, Task, make_folds, subsample
from nt_jax.evaluation.tasks.find import find_task
from nt_jax.files import owning, write_atomically
from nt_jax.progress import say

TABLES, FIGURE, TIDY = "probe.md", "probe.png", "results.parquet"
EMBEDDINGS = "embeddings"
DEFAULT_LAYERS = 10
ALL_LAYERS_UP_TO = 12


def default_layers(num_layers: int) -> tuple[int, ...]:
    """All layers of a model of up to 12, else 10 evenly spread ones with the first and the last."""
    count = num_layers if num_layers <= ALL_LAYERS_UP_TO else DEFAULT_LAYERS
    return tuple(int(layer) for layer in np.linspace(1, num_layers, count).round())


def probe(
    checkpoint: str | pathlib.Path,
    tasks: Sequence[str | pathlib.Path],
    out: pathlib.Path,
    *,
    data_dirs: Sequence[pathlib.Path] = (),
    progress: Callable[[str], None] = say,
    **choices: Any,
) -> list[dict[str, Any]]:
    """Probes `DIR[@STEP]` on every task (path or registered name) and writes into `out`.

    `choices` are those of `probe_model`. Each finished task is on disk at once. The same call
    again computes only what is missing; a task whose parameters, settings or sequences differ from
    those on disk is computed again and replaces its entry. Entries of other steps and tasks stay.
    Embeddings are kept in `out`/embeddings. Returns the results of `tasks`, in their order. Raises
    InputError for a bad checkpoint, task, layer or number.
    """
    parts = [find_task(task, data_dirs) for task in tasks]
    out = pathlib.Path(out)
    return probe_model(
        load(checkpoint),
        parts,
        out,
        checkpoint=str(checkpoint),
        cache=out / EMBEDDINGS,
        progress=progress,
        **choices,
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
    head: str = "logistic",
    pooling: Pooling = "mean",
    cache: pathlib.Path | None = None,
    progress: Callable[[str], None] = say,
) -> list[dict[str, Any]]:
    """`probe` for a model and tasks in memory; `checkpoint` is the name that is written down.

    Args:
        loaded: the model.
        tasks: tasks of different names.
        out: folder of the results.
        checkpoint: name of the checkpoint.
        layers: 1-based; None is all of up to 12, else 10 spread ones.
        folds: outer folds where a task has no test split.
        seed: of folds, subsampling, bootstrap and controls.
        max_sequences: of each split; 0 is all.
        head: "logistic", "mlp" or "both".
        pooling: "mean", "cls" or "max".
        cache: folder of embeddings to keep and use; None keeps none.
        progress: hears lines for people.
    """
    _check(tasks, max_sequences, head)
    chosen = loaded.check_layers(layers if layers else default_layers(loaded.num_layers))
    settings = ProbeSettings(
        layers=tuple(sorted(set(chosen))),
        folds=folds,
        seed=seed,
        max_sequences=max_sequences,
        head=head,
        pooling=pooling,
    )
    tasks = [subsample(task, max_sequences, seed) for task in tasks]
    folds_of = {task.name: make_folds(task, folds, seed) for task in tasks}
    out.mkdir(parents=True, exist_ok=True)
    with owning(out):
        return _probe_tasks(loaded, tasks, folds_of, settings, out, checkpoint, cache, progress)


def _probe_tasks(
    loaded: LoadedModel,
    tasks: Sequence[Task],
    folds_of: dict[str, list[Fold]],
    settings: ProbeSettings,
    out: pathlib.Path,
    checkpoint: str,
    cache: pathlib.Path | None,
    progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    stored = read_results(out / RESULTS)
    parameters = parameters_digest(loaded)
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
            result = {**key, "checkpoint": checkpoint, "tokens": loaded.tokens}
            result |= _probe_task(loaded, task, folds_of[task.name], settings, out, cache, progress)
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
    write_rows(out / TIDY, tidy(stored))
    told = [overview(results), *data_lines(results)]
    progress("\n".join([*told, f"written: {out / TABLES}, {RESULTS}, {FIGURE}, {TIDY}"]))
    return results


def _check(tasks: Sequence[Task], max_sequences: int, head: str) -> None:
    if not tasks:
        raise InputError("no task to probe")
    if max_sequences < 0:
        raise InputError(f"max_sequences={max_sequences}: 0 (all) or more")
    if head not in search.HEADS:
        known = ", ".join(search.HEADS)
        raise InputError(f"head {head!r}{nearest(head, search.HEADS)}; known: {known}")
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
    cache: pathlib.Path | None,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    scored = task.train if task.test is None else task.test
    return {
        "kind": task.kind,
        "classes": list(task.classes),
        "simulated": task.simulated,
        "split": "given" if task.test is not None else f"{len(folds)}-fold",
        "train": len(task.train),
        "scored": len(scored),
        "audit": dataclasses.asdict(task.audit),
        "overlap": known_overlap(out, loaded.config.data.path, task),
        **compare(loaded, task, folds, settings, out, cache, progress),
    }
