"""A checkpoint leaves in another layout, with the proof that its numbers are the same."""

import os
import pathlib
import shutil
from collections.abc import Callable, Mapping

import jax
import numpy as np

from nt_jax.checkpoint import parse_checkpoint, restore_params
from nt_jax.config import MaskingConfig
from nt_jax.errors import InputError
from nt_jax.files import write_atomically
from nt_jax.interchange import runtimes
from nt_jax.interchange.card import write_card
from nt_jax.interchange.flax_nnx import write_flax
from nt_jax.interchange.hf import write_hf
from nt_jax.interchange.nt import write_nt
from nt_jax.interchange.onnx_file import write_onnx
from nt_jax.interchange.proof import TOLERANCES, Certificate, compare, example_tokens
from nt_jax.interchange.safetensors_file import write_flat
from nt_jax.interchange.stablehlo import write_stablehlo
from nt_jax.interchange.weights import Weights, counted, of_params
from nt_jax.memory import collect
from nt_jax.progress import Progress, phases, silent
from nt_jax.report.record import read_run

CERTIFICATE = "certificate.json"
EXAMPLE_LENGTH = 64
"""Tokens of the longest row that both sides are compared on."""


class NotEqualError(RuntimeError):
    """The written files do not give the numbers of the checkpoint."""


def _nt(weights: Weights, masking: MaskingConfig, folder: pathlib.Path, progress: Progress) -> None:
    write_nt(counted(weights, progress), masking, folder)


def _onnx(
    weights: Weights, masking: MaskingConfig, folder: pathlib.Path, progress: Progress
) -> None:
    write_onnx(weights, folder, progress)


def _stablehlo(
    weights: Weights, masking: MaskingConfig, folder: pathlib.Path, progress: Progress
) -> None:
    write_stablehlo(weights, folder, progress)


def _flax(
    weights: Weights, masking: MaskingConfig, folder: pathlib.Path, progress: Progress
) -> None:
    write_flax(weights, folder, progress)


WRITERS: Mapping[str, Callable[..., None]] = {
    "hf": write_hf,
    "safetensors": write_flat,
    "onnx": _onnx,
    "stablehlo": _stablehlo,
    "flax": _flax,
    "nt": _nt,
}
"""Layouts that can be written: (weights, masking, folder, progress=...[, dtype=...])."""
HALF = ("hf", "safetensors")
"""Layouts that can also be written in bfloat16."""


def export_checkpoint(
    name: str,
    layout: str,
    folder: pathlib.Path,
    dtype: str = "float32",
    progress: Progress = silent,
) -> Certificate:
    """Writes `DIR[@STEP]` into `folder` in another layout.

    The files are compared with the checkpoint before they get their name; certificate.json and a
    model card (README.md) lie beside them. Raises InputError, or NotEqualError with nothing left
    behind. Memory: the parameters and one of their tensors; the written ones are loaded when
    those have gone. `progress` gets (bytes done, bytes in all).
    """
    if dtype != "float32" and layout not in HALF:
        raise InputError(f"--dtype {dtype}: {layout} is written in float32 only")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: not empty; name another folder")
    reading, writing, comparing = phases(progress, (2, 1, 2))
    workdir, asked = parse_checkpoint(name)
    params, step, experiment = restore_params(workdir, asked, progress=reading)
    if jax.default_backend() == "cpu":
        # The same memory, but slices of NumPy arrays are no copies.
        params = jax.tree.map(np.asarray, params)
    nbytes = sum(x.nbytes for x in jax.tree.leaves(params))
    run = read_run(workdir)
    model, tokenizer = experiment.model, experiment.tokenizer
    weights = of_params(params, model, tokenizer, f"{workdir}@{step}")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        more = {"dtype": dtype} if layout in HALF else {}
        WRITERS[layout](weights, experiment.masking, part, progress=writing, **more)
        vocabulary = tokenizer.make()
        tokens = example_tokens(vocabulary, min(EXAMPLE_LENGTH, model.max_positions))
        ours = runtimes.run_params(jax.device_put(params), model, tokenizer, tokens)
        comparing(nbytes // 2, nbytes)
        # The other side takes as much memory again.
        del params, weights
        jax.clear_caches()
        collect()
        sides = {
            f"{workdir.resolve().name}@{step}": ours,
            f"{layout} {dtype}": runtimes.run(part, tokens),
        }
        comparing(nbytes, nbytes)
        certificate = compare(tokens, vocabulary.pad_id, sides, TOLERANCES[dtype])
        if not certificate.passed:
            raise NotEqualError(f"{folder}: not written\n{certificate.table()}")
        write_atomically(part / CERTIFICATE, certificate.json())
        write_card(run, step, layout, part, certificate.table())
        if folder.exists():
            folder.rmdir()
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return certificate
