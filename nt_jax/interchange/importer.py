"""A checkpoint of any layout becomes an ordinary workdir."""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable

from nt_jax import workdir
from nt_jax.checkpoint import save_params
from nt_jax.config import DataConfig, Experiment
from nt_jax.interchange import formats, hub
from nt_jax.interchange.weights import Weights, to_params
from nt_jax.progress import Progress, phases, silent


def import_checkpoint(
    source: str,
    folder: pathlib.Path,
    progress: Progress = silent,
    layer_norm_epsilon: float | None = None,
    read: Callable[[pathlib.Path], Weights] = formats.read,
) -> Experiment:
    """Writes the workdir `folder` with the parameters of `source` as its checkpoint 0.

    `source` is a folder of any readable layout, a preset with published weights, or a repository
    of the hub. Evaluation commands take the workdir as it is; `pretrain --init-from` goes on from
    it. The sequence length is the longest that the model takes. Memory: the parameters and about
    half a gigabyte. Whole or not at all: nothing has the name of `folder` before all of it is
    written. `progress` gets (bytes done, bytes in all). `layer_norm_epsilon` replaces that of the
    source: published PyTorch configs say 1e-12 where the models were trained with 1e-5. `read` is
    the reader of the folder. Raises InputError.
    """
    reading, writing = phases(progress, (1, 3))
    workdir.check_empty(folder)
    path, name = hub.find(source)
    weights = read(path)
    model = weights.model
    if layer_norm_epsilon is not None:
        model = dataclasses.replace(model, layer_norm_epsilon=layer_norm_epsilon)
    experiment = Experiment(
        name=name,
        model=model,
        tokenizer=weights.tokenizer,
        data=DataConfig(sequence_length=model.max_positions),
    )
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        params = to_params(weights, reading)
        workdir.create(part, experiment, {"imported_from": source})
        weights.tokenizer.make().save(part / workdir.TOKENIZER)
        save_params(part, params, experiment, {"tokens": 0}, writing)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return experiment
