"""The frozen probe of the same checkpoint on the same folds, as `nt-jax probe` fits it."""

import pathlib
from collections.abc import Callable

import numpy as np

from nt_jax.evaluation import search
from nt_jax.evaluation.embeddings import cached_layers
from nt_jax.evaluation.finetune.saved import read_arrays, write_arrays
from nt_jax.evaluation.finetune.settings import Settings
from nt_jax.evaluation.loading import LoadedModel
from nt_jax.evaluation.probe import EMBEDDINGS, default_layers
from nt_jax.evaluation.tasks import Fold, Task

PROBE = "probe.npz"
HEAD = "logistic"


def frozen_probe(
    loaded: LoadedModel,
    task: Task,
    folds: list[Fold],
    settings: Settings,
    out: pathlib.Path,
    say: Callable[[str], None],
) -> np.ndarray:
    """Predictions of the held-out sequences, in the order of their rows; fitted once."""
    stored = read_arrays(out / PROBE)
    if stored is not None:
        return stored["predictions"]
    parts = [task.train] if task.test is None else [task.train, task.test]
    sequences = [sequence for split in parts for sequence in split.sequences]
    groups = None
    if all(split.groups is not None for split in parts):
        groups = [group for split in parts for group in split.groups or ()]
    problem = search.Problem(
        kind=task.kind,
        truth=np.concatenate([split.labels for split in parts]),
        classes=len(task.classes),
        groups=groups,
        folds=folds,
        seed=settings.seed,
    )
    layers = default_layers(loaded.num_layers)
    say(f"probe: embedding {len(sequences):,} sequences, {len(layers)} layers")
    features = cached_layers(loaded, sequences, layers, out / EMBEDDINGS, settings.pooling)

    def finished(layer: int, inner: float) -> None:
        say(f"probe: layer {layer}: inner score {inner:.3f}")

    fits = search.fit_all(features, problem, search.HEADS[HEAD](), finished)
    best = [max(fits, key=lambda layer: fits[layer][fold].inner) for fold in range(len(folds))]
    found = search.join(folds, [fits[layer][fold] for fold, layer in enumerate(best)])
    write_arrays(out / PROBE, {"predictions": found, "layers": np.array(best)})
    return found
