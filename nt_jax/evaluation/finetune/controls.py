"""What a fine-tuning is held against besides its own start, on the same folds.

The frozen probe of the same checkpoint, k-mer frequencies with the head of that probe, and the
supervised CNN: each as `nt-jax probe` fits it with its default settings, the layer or k chosen
within the training sequences. They are fitted on all training sequences of a fold; what a
fine-tuning sets aside for validation, they cross-validate on.
"""

import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from nt_jax.evaluation import search
from nt_jax.evaluation.embeddings import cached_layers
from nt_jax.evaluation.families import ProbeSettings, fits_of, sequence_controls
from nt_jax.evaluation.finetune.report import Family
from nt_jax.evaluation.finetune.saved import read_arrays, write_arrays
from nt_jax.evaluation.finetune.settings import Settings
from nt_jax.evaluation.loading import LoadedModel
from nt_jax.evaluation.probe import EMBEDDINGS, default_layers
from nt_jax.evaluation.tasks import Task

PROBE = "probe.npz"

Say = Callable[[str], None]


def controls(
    loaded: LoadedModel,
    task: Task,
    sequences: Sequence[str],
    problem: search.Problem,
    settings: Settings,
    out: pathlib.Path,
    say: Say,
) -> Iterator[Family]:
    """The probe, the k-mers and the CNN, one after the other; each is fitted once and kept.

    `sequences` are those of all rows of `problem`. Raises InputError for a damaged file in `out`.
    """
    as_probed = ProbeSettings(
        layers=default_layers(loaded.num_layers),
        folds=settings.folds,
        seed=settings.seed,
        max_sequences=settings.max_sequences,
        pooling=settings.pooling,
    )
    yield _frozen_probe(loaded, sequences, problem, as_probed, out, say)
    for source in sequence_controls(task.name, sequences, problem, as_probed, say):
        fits = fits_of(source, task, as_probed, out)
        best = search.choose(fits)
        found = search.join(problem.folds, [fits[v][fold] for fold, v in enumerate(best)])
        # There is one network: nothing was chosen.
        chosen = () if source.unit == "network" else tuple(best)
        yield Family(source.name, True, found, chosen=chosen)


def _frozen_probe(
    loaded: LoadedModel,
    sequences: Sequence[str],
    problem: search.Problem,
    settings: ProbeSettings,
    out: pathlib.Path,
    say: Say,
) -> Family:
    stored = read_arrays(out / PROBE)
    if stored is None:
        say(f"probe: embedding {len(sequences):,} sequences, {len(settings.layers)} layers")
        features = cached_layers(
            loaded, sequences, settings.layers, out / EMBEDDINGS, settings.pooling
        )

        def finished(layer: int, inner: float) -> None:
            say(f"probe: layer {layer}: inner score {inner:.3f}")

        fits = search.fit_all(features, problem, search.HEADS[settings.head](), finished)
        best = search.choose(fits)
        found = search.join(problem.folds, [fits[v][fold] for fold, v in enumerate(best)])
        stored = {"predictions": found, "layers": np.array(best)}
        write_arrays(out / PROBE, stored)
    layers = tuple(int(layer) for layer in stored["layers"])
    return Family("probe", True, stored["predictions"], chosen=layers)
