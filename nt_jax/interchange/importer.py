"""A checkpoint of any layout becomes an ordinary workdir."""

import os
import pathlib
import shutil
from collections.abc import Callable

from nt_jax import workdir
from nt_jax.checkpoint import parse_checkpoint, save_params
from nt_jax.config import DataConfig, Experiment
from nt_jax.interchange import formats
from nt_jax.interchange.weights import to_params


def import_checkpoint(
    source: str,
    folder: pathlib.Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Experiment:
    """Writes the workdir `folder` with the parameters of `source` as its checkpoint 0.

    `source` is a folder of any readable layout. Evaluation commands take the workdir as it is;
    `pretrain --init-from` goes on from it. The sequence length is the longest that the model
    takes. Memory: the parameters and about 1 GB. Whole or not at all: nothing has the name of
    `folder` before all of it is written. `progress` gets (bytes read, bytes in all). Raises
    InputError.
    """
    weights = formats.read(source)
    experiment = Experiment(
        name=parse_checkpoint(source)[0].resolve().name,
        model=weights.model,
        tokenizer=weights.tokenizer,
        data=DataConfig(sequence_length=weights.model.max_positions),
    )
    workdir.check_empty(folder)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        params = to_params(weights, progress)
        workdir.create(part, experiment, {"imported_from": source})
        weights.tokenizer.make().save(part / workdir.TOKENIZER)
        save_params(part, params, experiment, {"tokens": 0})
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return experiment
