"""The published JAX layout: a folder with `hyperparams.json` and `pytree_ckpt.joblib`."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nt_jax.config import ConfigError, MaskingConfig, ModelConfig, TokenizerConfig
from nt_jax.errors import InputError
from nt_jax.files import replacing
from nt_jax.interchange.hyperparams import config_from_hyperparams, hyperparams_from_config
from nt_jax.interchange.joblib_file import read_tree, write_tree
from nt_jax.interchange.weights import (
    FLOATS,
    ROOT,
    Weights,
    check_tensors,
    expected_tensors,
    report_faults,
)

HYPERPARAMS = "hyperparams.json"
CHECKPOINT = "pytree_ckpt.joblib"

_EMBEDDING = f"{ROOT}/~/embed/embeddings"
_LAYER = f"{ROOT}/attention_layer_"


@runtime_checkable
class ReadableArray(Protocol):
    """An array that is read when it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""

    @property
    def dtype(self) -> np.dtype:
        """Type of what `read` returns."""

    def read(self) -> np.ndarray:
        """The array."""


TreeReader = Callable[[pathlib.Path], Mapping[str, ReadableArray]]
"""joblib file -> its arrays by name, `MODULE/ARRAY`."""


def read_nt(folder: pathlib.Path, tree: TreeReader = read_tree) -> Weights:
    """A published checkpoint; its tensors are maps of the file, unless `tree` loads them.

    The rows of the token embedding tell the vocabulary. Raises InputError when a file is missing
    or damaged, or when the two files describe different models.
    """
    missing = [name for name in (HYPERPARAMS, CHECKPOINT) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder}: no {' and no '.join(missing)}; the published layout is a folder with "
            f"{HYPERPARAMS} and {CHECKPOINT}"
        )
    hyperparams = _read_hyperparams(folder / HYPERPARAMS)
    arrays = tree(folder / CHECKPOINT)
    model, tokenizer = _configs(hyperparams, arrays, folder)
    expected = _expected(model, tokenizer, folder)
    where = str(folder / CHECKPOINT)
    check_tensors({name: array.shape for name, array in arrays.items()}, expected, where)
    wrong = [
        f"{name} of type {array.dtype} (expected float32)"
        for name, array in arrays.items()
        if str(array.dtype) not in FLOATS
    ]
    report_faults({"wrong": wrong}, where)
    return Weights(model, tokenizer, expected, lambda name: arrays[name].read(), str(folder))


def write_nt(weights: Weights, masking: MaskingConfig | None, folder: pathlib.Path) -> None:
    """Writes the two files into a folder, made where it does not exist; holds one tensor at a time.

    Files of these names are replaced once both are complete, `hyperparams.json` last. Raises
    InputError, and writes nothing, for settings that the published loader would silently not apply.
    """
    hyperparams = hyperparams_from_config(weights.model, weights.tokenizer, masking)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}; name a folder") from None
    with replacing(folder / HYPERPARAMS) as file:
        file.write((json.dumps(hyperparams, indent=1) + "\n").encode())
        write_tree(folder / CHECKPOINT, weights.tensors, weights.read)


def _read_hyperparams(path: pathlib.Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: is no JSON object of hyper-parameters")
    return values


def _configs(
    hyperparams: Mapping[str, Any], arrays: Mapping[str, ReadableArray], folder: pathlib.Path
) -> tuple[ModelConfig, TokenizerConfig]:
    """Configs; the two sizes that a wrong pair of files differs in are compared at once."""
    where, checkpoint = str(folder / HYPERPARAMS), folder / CHECKPOINT
    if _EMBEDDING not in arrays or len(arrays[_EMBEDDING].shape) != 2:
        raise InputError(
            f"{checkpoint}: holds no token embedding {_EMBEDDING}; it is no Nucleotide Transformer"
        )
    rows, width = arrays[_EMBEDDING].shape
    model, tokenizer = config_from_hyperparams(hyperparams, rows, where)
    layers = len({name.split("/")[1] for name in arrays if name.startswith(_LAYER)})
    for key, expected, found in (
        ("num_layers", model.num_layers, layers),
        ("embed_dim", model.embed_dim, width),
    ):
        if expected != found:
            raise InputError(
                f"{where}: {key} is {expected}, but the weights in {CHECKPOINT} have {found}; "
                "the two files belong to different models"
            )
    return model, tokenizer


def _expected(
    model: ModelConfig, tokenizer: TokenizerConfig, folder: pathlib.Path
) -> dict[str, tuple[int, ...]]:
    try:
        return expected_tensors(model, tokenizer)
    except ConfigError as error:
        raise InputError(f"{folder / HYPERPARAMS}: {error}") from None
