"""Which layout a folder has, and its reader."""

import json
import pathlib
from collections.abc import Callable, Mapping

from nt_jax.checkpoint import FOLDER, parse_checkpoint, restore_params
from nt_jax.errors import InputError
from nt_jax.interchange import flax_nnx, onnx_file, safetensors_file, stablehlo
from nt_jax.interchange.hf import read_hf
from nt_jax.interchange.nt import read_nt
from nt_jax.interchange.weights import Weights, of_params


def read_workdir(path: pathlib.Path) -> Weights:
    """Weights of `DIR[@STEP]`; memory: the parameters. Raises InputError."""
    folder, step = parse_checkpoint(path)
    params, step, experiment = restore_params(folder, step)
    return of_params(params, experiment.model, experiment.tokenizer, f"{folder}@{step}")


READERS: Mapping[str, Callable[[pathlib.Path], Weights]] = {
    "workdir": read_workdir,
    "nt": read_nt,
    "hf": read_hf,
    "safetensors": safetensors_file.read_flat,
    "onnx": onnx_file.read_onnx,
    "stablehlo": stablehlo.read_stablehlo,
    "flax": flax_nnx.read_flax,
}
"""Layouts that can be read back into weights, by name."""

_FORMATS = {
    safetensors_file.LAYOUT: "safetensors",
    onnx_file.LAYOUT: "onnx",
    stablehlo.LAYOUT: "stablehlo",
    flax_nnx.LAYOUT: "flax",
}


def read(path: str | pathlib.Path) -> Weights:
    """Weights of a folder of any layout, told by its files; raises InputError."""
    return READERS[layout(path)](pathlib.Path(path))


def layout(path: str | pathlib.Path) -> str:
    """Name of the layout (a key of `READERS`); InputError when it is none."""
    folder, _ = parse_checkpoint(path)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    if (folder / FOLDER).is_dir():
        return "workdir"
    if (folder / "hyperparams.json").is_file() or (folder / "pytree_ckpt.joblib").is_file():
        return "nt"
    config = folder / "config.json"
    if not config.is_file():
        raise InputError(
            f"{folder}: no checkpoint in a known layout (neither {FOLDER}/, hyperparams.json nor "
            "config.json in it)"
        )
    try:
        values = json.loads(config.read_bytes())
    except ValueError as error:
        raise InputError(f"{config}: damaged, not JSON ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f"{config}: damaged, not a JSON object")
    if "format" not in values and "model_type" in values:
        return "hf"
    if values.get("format") not in _FORMATS:
        raise InputError(
            f"{config}: no checkpoint in a known layout (its format is "
            f"{values.get('format')!r}; known: {', '.join(_FORMATS)}, and Hugging Face folders)"
        )
    return _FORMATS[values["format"]]
