"""Checksums of arrays: 64 bits over all bits and their positions, whatever the sharding."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, UInt32

from nt_jax.progress import Progress, silent

_SALTS = (0x2545F491, 0x61C88647)
_STEP = 0x9E3779B1
_ROUNDS = ((16, 0x85EBCA6B), (13, 0xC2B2AE35))


class CorruptedError(RuntimeError):
    """Arrays that are not the ones that were saved."""


def _mix(words: Any, index: Any, salt: int) -> Any:
    """Hash of each 32-bit word and its position."""
    h = words ^ (index * np.uint32(_STEP) + np.uint32(salt))
    for shift, factor in _ROUNDS:
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    return h ^ (h >> np.uint32(16))


def _checksum(array: Array) -> UInt32[Array, "2"]:
    """Two 32-bit words over all bits and their positions; integer sums commute over shards."""
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint32)
    width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[array.dtype.itemsize]
    words = jax.lax.bitcast_convert_type(array, width).astype(jnp.uint32)
    index = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        index = index * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    return jnp.stack([jnp.sum(_mix(words, index, salt), dtype=jnp.uint32) for salt in _SALTS])


def host_checksums(tree: Any, chunk: int = 1 << 15, progress: Progress = silent) -> dict[str, str]:
    """The same digits for host arrays, `chunk` words at a time, in a fixed amount of memory.

    `progress` gets (bytes done, bytes in all).
    """
    leaves = [(path, np.asarray(leaf)) for path, leaf in named(tree)]
    total, done, found = sum(leaf.nbytes for _, leaf in leaves), 0, {}
    for path, leaf in leaves:
        sums = [0] * len(_SALTS)
        for part, nbytes in _chunk_sums(leaf, chunk):
            sums = [word + more for word, more in zip(sums, part, strict=True)]
            done += nbytes
            progress(done, total)
        found[path] = "".join(f"{word & 0xFFFFFFFF:08x}" for word in sums)
    return found


def _chunk_sums(array: np.ndarray, chunk: int) -> Iterator[tuple[list[int], int]]:
    """Sums of each chunk, and its bytes; `_mix` in place, which takes half the time."""
    width = {1: np.uint8, 2: np.uint16, 4: np.uint32}[array.dtype.itemsize]
    flat = np.ascontiguousarray(array).reshape(-1).view(width)
    steps = np.arange(chunk, dtype=np.uint32) * np.uint32(_STEP)
    for start in range(0, flat.size, chunk):
        words = flat[start : start + chunk]
        h, shifted = np.empty((2, words.size), np.uint32)
        sums = []
        for salt in _SALTS:
            np.add(steps[: words.size], np.uint32((start * _STEP + salt) & 0xFFFFFFFF), out=h)
            h ^= words
            for shift, factor in _ROUNDS:
                h ^= np.right_shift(h, np.uint32(shift), out=shifted)
                h *= np.uint32(factor)
            h ^= np.right_shift(h, np.uint32(16), out=shifted)
            sums.append(int(h.sum(dtype=np.uint64)))
        yield sums, words.nbytes


@functools.cache
def _all_checksums(mesh: Mesh | None) -> Callable[[list[Array]], list[Array]]:
    """One program for all arrays: independent programs with collectives, in flight together, can
    wait for each other on fake CPU devices. Over several hosts each of them gets the digits."""
    everywhere = NamedSharding(mesh, P()) if mesh else None
    return jax.jit(lambda leaves: list(map(_checksum, leaves)), out_shardings=everywhere)


def checksums(tree: Any) -> dict[str, str]:
    """Checksum of every array by its path, as 16 hexadecimal digits."""
    leaves = named(tree)
    spread = [
        x.sharding for _, x in leaves if isinstance(x, jax.Array) and not x.is_fully_addressable
    ]
    mesh = spread[0].mesh if spread and isinstance(spread[0], NamedSharding) else None
    words = jax.device_get(_all_checksums(mesh)([leaf for _, leaf in leaves]))
    return {
        path: f"{int(a):08x}{int(b):08x}" for (path, _), (a, b) in zip(leaves, words, strict=True)
    }


def named(tree: Any) -> list[tuple[str, Any]]:
    """Leaves with their paths, `module/name`."""
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def compare(found: dict[str, str], expected: dict[str, str], where: str) -> None:
    """Raises CorruptedError, which names an array, unless all digits are the expected ones."""
    wrong = [path for path, value in found.items() if expected.get(path) != value]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise CorruptedError(f"{where}: array {wrong[0]}{more} differs from what was saved")
