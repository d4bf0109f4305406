"""Reads the parameters of a checkpoint chunk by chunk, into the memory that they take."""

import collections
import math
import pathlib
from typing import Any

import jax
import numpy as np
import tensorstore as ts

from nt_jax.checksums import CorruptedError, compare, host_checksums
from nt_jax.memory import aligned_empty
from nt_jax.progress import Progress, phases

# Slabs of chunks that are read at the same time.
_IN_FLIGHT = 2


def read_to_device(
    folder: pathlib.Path, abstract: Any, expected: dict[str, str], progress: Progress
) -> Any:
    """Parameters on the first device, one after the other, each checked on its way.

    Orbax reads all chunks of an array at once and copies the array once more; here a few chunks
    go straight to their place, and a CPU device takes the place over.
    """
    device = jax.local_devices()[0]
    context = ts.Context({"cache_pool#nodes": {"total_bytes_limit": 100_000_000}})
    total, done = sum(map(_nbytes, jax.tree.leaves(abstract))), 0
    params: dict[str, dict[str, jax.Array]] = {}
    for module, arrays in abstract.items():
        params[module] = {}
        for name, array in arrays.items():
            path = f"{module}/{name}"
            report = _of_whole(progress, done, total)
            reading, checking = phases(report, (1, 1))
            found = _read(folder, f"{module}.{name}", array, context, reading)
            sums = host_checksums({module: {name: found}}, progress=checking)
            compare(sums, {path: expected.get(path, "")}, str(folder.parent))
            params[module][name] = jax.device_put(found, device)
            done += found.nbytes
    return params


def check_index(folder: pathlib.Path) -> None:
    """Raises when the list of a tree's arrays cannot be read; their values are not looked at.

    Orbax asks for all arrays at once, and each tells at length what is wrong with the list.
    """
    nodes = ts.KvStore.open({"driver": "ocdbt", "base": folder.as_uri() + "/"}).result()
    if not nodes.list().result():
        raise CorruptedError(f"{folder} has no list of its arrays")


def _of_whole(progress: Progress, before: int, whole: int) -> Progress:
    return lambda done, total: progress(before + done, whole)


def _read(
    folder: pathlib.Path, key: str, array: Any, context: ts.Context, progress: Progress
) -> np.ndarray:
    """An array into aligned memory, in slabs of whole chunks, a few of them at a time."""
    nodes = {"driver": "ocdbt", "base": folder.as_uri(), "cache_pool": "cache_pool#nodes"}
    spec = {"driver": "zarr", "kvstore": {**nodes, "path": key}}
    stored = ts.open(spec, read=True, open=True, context=context).result()
    if stored.shape != array.shape or stored.dtype.numpy_dtype != array.dtype:
        raise CorruptedError(f"{key} is {stored.dtype.name}{list(stored.shape)}")
    found = aligned_empty(array.shape)
    target = ts.array(found)
    rows: Any = stored.chunk_layout.read_chunk_template.shape[0]
    pending: collections.deque[tuple[int, Any]] = collections.deque()
    for first in range(0, array.shape[0], rows):
        last = min(first + rows, array.shape[0])
        if len(pending) == _IN_FLIGHT:
            end, copied = pending.popleft()
            copied.result()
            progress(end, array.shape[0])
        pending.append((last, target[first:last].write(stored[first:last])))
    for _, copied in pending:
        copied.result()
    return found


def _nbytes(array: jax.ShapeDtypeStruct) -> int:
    return math.prod(array.shape) * array.dtype.itemsize
