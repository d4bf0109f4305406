"""The weight files of a Hugging Face folder: safetensors or torch pickles, whole or in shards."""

import functools
import json
import math
import pathlib
import pickle
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from nt_jax.errors import InputError
from nt_jax.files import write_atomically
from nt_jax.interchange.safetensors_file import Tensor, read_safetensors, write_safetensors
from nt_jax.progress import Progress, silent

SAFETENSORS = "model.safetensors"
_BIN = "pytorch_model.bin"
_INDEX = ".index.json"
_TORCH_TYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "bool": np.dtype(bool)} | {
    name: np.dtype(name)
    for name in ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8")
}
_LFS_POINTER = b"version https://git-lfs"


def open_weights(folder: pathlib.Path) -> dict[str, Tensor]:
    """All tensors of a folder, none of them read yet; safetensors go before pickles.

    Raises InputError when there is no weight file, a shard is missing, or a file is damaged.
    """
    for name in (SAFETENSORS, SAFETENSORS + _INDEX, _BIN, _BIN + _INDEX):
        path = folder / name
        if path.is_file():
            return _open_shards(path) if name.endswith(_INDEX) else _open(path)
    raise InputError(
        f"{folder}: no weights: expected {SAFETENSORS}, {_BIN}, or one of them in shards with its "
        f"{_INDEX.removeprefix('.')}"
    )


def write_weights(
    folder: pathlib.Path,
    tensors: Mapping[str, Tensor],
    shard_bytes: int,
    progress: Progress = silent,
) -> None:
    """`model.safetensors`, or shards of at most `shard_bytes` (or one tensor) with their index."""
    sizes = {
        name: math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
        for name, tensor in tensors.items()
    }
    total = sum(sizes.values())
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    stem, suffix = SAFETENSORS.split(".")
    files = [f"{stem}-{i:05d}-of-{len(shards):05d}.{suffix}" for i in range(1, len(shards) + 1)]
    if len(shards) == 1:
        files = [SAFETENSORS]
    before = 0
    for file, names in zip(files, shards, strict=True):
        part = {name: tensors[name] for name in names}
        # transformers 4 refuses files that do not say which framework they are for.
        written = functools.partial(_further, progress, before, total)
        write_safetensors(folder / file, part, {"format": "pt"}, written)
        before += sum(sizes[name] for name in names)
    if len(shards) > 1:
        places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": places}
        write_atomically(folder / (SAFETENSORS + _INDEX), json.dumps(index, indent=2) + "\n")


def _further(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Content of a JSON file; InputError when it is missing or holds no object."""
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise InputError(f"{path}: not a JSON object")
    return values


def _open(path: pathlib.Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise InputError(f"{path}: a pointer to the file, not the file: run `git lfs pull`")
    return _open_safetensors(path) if path.suffix == ".safetensors" else _open_pickle(path)


def _open_shards(index: pathlib.Path) -> dict[str, Tensor]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(
        isinstance(file, str) and pathlib.Path(file).name == file for file in places.values()
    ):
        raise InputError(f"{index}: weight_map does not name a file of this folder for each tensor")
    files = {file: index.with_name(file) for file in sorted(set(places.values()))}
    absent = [file for file, path in files.items() if not path.is_file()]
    if absent:
        raise InputError(f"{index}: missing files: {', '.join(absent)}")
    shards = {file: _open(path) for file, path in files.items()}
    lost = [name for name, file in places.items() if name not in shards[file]]
    if lost:
        raise InputError(f"{index}: not in the file named for them: {', '.join(sorted(lost))}")
    return {name: shards[file][name] for name, file in places.items()}


def _open_safetensors(path: pathlib.Path) -> dict[str, Tensor]:
    arrays, _ = read_safetensors(path)
    return {
        name: Tensor(array.dtype, array.shape, functools.partial(arrays.__getitem__, name))
        for name, array in arrays.items()
    }


def _open_pickle(path: pathlib.Path) -> dict[str, Tensor]:
    """Tensors of a `torch.save` file, memory-mapped; nothing but tensors is unpickled."""
    try:
        import torch
    except ImportError:
        raise InputError(f"{path}: reading it needs torch: pip install 'nt-jax[export]'") from None

    with path.open("rb") as file:
        if file.read(2) != b"PK":
            raise InputError(f"{path}: no PyTorch file, or one of PyTorch < 1.6: re-save it")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: holds more than tensors, which is never unpickled here; re-save the state "
            "dict as safetensors if you trust the file"
        ) from None
    except (RuntimeError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{path}: truncated or damaged: {reason}") from None
    if not isinstance(state, dict) or not all(isinstance(x, torch.Tensor) for x in state.values()):
        raise InputError(f"{path}: not a dictionary of tensors")

    def read(name: str) -> np.ndarray:
        tensor = state[name].detach()
        if tensor.dtype == torch.bfloat16:  # unknown to NumPy, so its bits are taken along
            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()

    tensors = {}
    for name, tensor in state.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind not in _TORCH_TYPES:
            raise InputError(f"{path}: {name} has type {kind}, which is not supported")
        shape = tuple(tensor.shape)
        tensors[name] = Tensor(_TORCH_TYPES[kind], shape, functools.partial(read, name))
    return tensors
