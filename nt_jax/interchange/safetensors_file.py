"""The safetensors format, streamed, and our own flat layout in it.

A file is the length of its header (8 bytes, little-endian), the header (JSON: name -> dtype,
shape, offsets) and the bytes of all tensors without a gap. The library writes only what is in
memory as a whole and has no bfloat16 for NumPy; here one tensor is written at a time, and read
memory-mapped at the offsets of a header that the library has checked.
"""

import functools
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike
from safetensors import SafetensorError, safe_open

from nt_jax.config import MaskingConfig, to_dict
from nt_jax.errors import InputError
from nt_jax.files import replacing
from nt_jax.interchange.config_file import read_config, write_config
from nt_jax.interchange.weights import Weights, check_tensors, expected_tensors, read_as
from nt_jax.progress import Progress, silent

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_METADATA = "__metadata__"

FLOAT_TYPES = {"float32": _DTYPES["F32"], "bfloat16": _DTYPES["BF16"]}
"""What weights can be written in: every bit of a checkpoint, or rounded to the nearest."""

LAYOUT, VERSION = "nt-jax/safetensors", 1
"""What `config.json` and the file's metadata say of the flat layout."""
MODEL_FILE = "model.safetensors"


class Tensor(NamedTuple):
    """What is known of a tensor before it is read."""

    dtype: DTypeLike
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    """Returns the array, of exactly this dtype and shape."""
    parts: Callable[[], Iterator[np.ndarray]] | None = None
    """Returns the same bytes in pieces, one after the other, where that takes less memory."""


def write_safetensors(
    path: pathlib.Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> None:
    """Writes a file atomically; each tensor is read once and let go, so one is in memory.

    Wider types come first, so that every tensor is aligned; else the order is that of `tensors`.
    `progress` gets (bytes done, bytes in all). Raises ValueError for a type the format has not
    and for an array that is not as announced.
    """
    order = sorted(tensors, key=lambda name: -np.dtype(tensors[name].dtype).itemsize)
    header: dict[str, object] = {_METADATA: dict(metadata)} if metadata else {}
    ends = [0]
    for name in order:
        if name == _METADATA:
            raise ValueError(f"{path}: no tensor can be called {_METADATA}")
        dtype, shape = np.dtype(tensors[name].dtype), tensors[name].shape
        if dtype not in _CODES:
            raise ValueError(f"{path}: {name} of type {dtype}, which safetensors has not")
        ends.append(ends[-1] + dtype.itemsize * math.prod(shape))
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": ends[-2:]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        start = file.tell()
        for name, end in zip(order, ends[1:], strict=True):
            for part in _bytes(tensors[name], f"{path}: {name}"):
                file.write(part)
                # Otherwise it would stay until the next one has been read.
                del part
                progress(file.tell() - start, ends[-1])
            if file.tell() != start + end:
                raise ValueError(f"{path}: {name} has more or fewer bytes than announced")


def _bytes(tensor: Tensor, where: str) -> Iterator[memoryview]:
    for array in tensor.parts() if tensor.parts else (tensor.read(),):
        whole = tensor.parts is None
        if array.dtype != tensor.dtype or (whole and array.shape != tuple(tensor.shape)):
            raise ValueError(
                f"{where} is {array.dtype}{list(array.shape)}, announced as "
                f"{np.dtype(tensor.dtype)}{list(tensor.shape)}"
            )
        # As bytes, for bfloat16 has no buffer interface.
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        del array


def read_safetensors(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors by name, in the order of the file, and its metadata.

    The arrays are read-only views of the mapped file: shape and dtype are known at once, values
    are read where they are touched. Raises InputError for a file that is missing, truncated, of
    another format, or with a type that NumPy has not (4- and 6-bit floats and the like).
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0].rpartition("deserializing header: ")[2]
        raise InputError(
            f"{path}: no safetensors file or not a whole one ({reason}); get it again"
        ) from None
    data = np.memmap(path, np.uint8, mode="r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    metadata = header.pop(_METADATA, {})
    arrays = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if entry["dtype"] not in _DTYPES:
            raise InputError(
                f"{path}: {name} of type {entry['dtype']}; known: {', '.join(_DTYPES)}"
            )
        offset = start + entry["data_offsets"][0]
        arrays[name] = np.ndarray(entry["shape"], _DTYPES[entry["dtype"]], data, offset)
    return arrays, metadata


def read_exactly(
    path: pathlib.Path, expected: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """`read_safetensors` of a file that must hold these tensors (name -> shape) and no other."""
    arrays, _ = read_safetensors(path)
    check_tensors({name: array.shape for name, array in arrays.items()}, expected, str(path))
    return arrays


def float_tensors(weights: Weights, dtype: str = "float32") -> dict[str, Tensor]:
    """What `write_safetensors` takes: all tensors under their published names, in one type.

    Raises InputError for a type other than `FLOAT_TYPES` and for tensors that are not those of
    the model; for a tensor that holds no floats, when it is read.
    """
    expected = expected_tensors(weights.model, weights.tokenizer)
    check_tensors(weights.tensors, expected, weights.source)
    if dtype not in FLOAT_TYPES:
        raise InputError(f"type {dtype!r}; known: {', '.join(FLOAT_TYPES)}")
    target = FLOAT_TYPES[dtype]
    return {
        name: Tensor(target, shape, functools.partial(read_as, weights, name, target))
        for name, shape in expected.items()
    }


def write_flat(
    weights: Weights,
    masking: MaskingConfig | None,
    folder: pathlib.Path,
    dtype: str = "float32",
    progress: Progress = silent,
) -> None:
    """Writes `model.safetensors` (published names, `MODULE/ARRAY`) and `config.json`.

    `masking` is kept for whoever goes on training, where it is known. `dtype` is one of
    `FLOAT_TYPES`; raises InputError as `float_tensors` does.
    """
    tensors = float_tensors(weights, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    identity = {"format": LAYOUT, "version": str(VERSION)}
    write_safetensors(folder / MODEL_FILE, tensors, identity, progress)
    more = {"masking": to_dict(masking)} if masking else {}
    write_config(folder, LAYOUT, VERSION, weights, **more)


def read_flat(folder: pathlib.Path) -> Weights:
    """Weights that read a folder of `write_flat` where it lies.

    Raises InputError when a file is missing or damaged, or when the tensors are not those of the
    model that `config.json` describes.
    """
    model, tokenizer = read_config(folder, LAYOUT, VERSION)
    path = folder / MODEL_FILE
    expected = expected_tensors(model, tokenizer)
    arrays = read_exactly(path, expected)
    return Weights(model, tokenizer, expected, arrays.__getitem__, str(path))
