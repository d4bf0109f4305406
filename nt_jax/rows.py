"""Which rows of a batch a process reads, and how they become arrays over all devices, in time."""

import functools
import itertools
from collections import deque
from collections.abc import Iterator
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

T = TypeVar("T")


def ahead(iterator: Iterator[T], depth: int = 2) -> Iterator[T]:
    """Takes `depth` items before the first is used: what is dispatched runs meanwhile."""
    queue = deque(itertools.islice(iterator, depth))
    while queue:
        yield queue.popleft()
        queue.extend(itertools.islice(iterator, 1))


class Rows:
    """The rows of a batch of `batch` rows that lie on this process's devices.

    They follow from the sharding and from nothing else: a mesh orders devices by their topology,
    and an axis that splits no batch may run across hosts, which then read the same rows.
    """

    def __init__(self, sharding: NamedSharding, batch: int):
        self._mesh, self._spec, self._batch = sharding.mesh, sharding.spec, batch

    def _sharding(self, rank: int) -> NamedSharding:
        return NamedSharding(self._mesh, P(*tuple(self._spec)[:rank]))

    @functools.cached_property
    def own(self) -> np.ndarray:
        """Their numbers, ascending."""
        parts = self._sharding(1).addressable_devices_indices_map((self._batch,)).values()
        everyone = np.arange(self._batch)
        return np.unique(np.concatenate([everyone[index] for index in parts if index is not None]))

    def place(self, local: np.ndarray) -> jax.Array:
        """Array over all devices from this process's rows, [own, ...]."""

        def piece(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None  # asked for own devices alone
            first, stop, _ = index[0].indices(self._batch)
            at = int(np.searchsorted(self.own, first))
            return local[(slice(at, at + stop - first), *index[1:])]

        shape = (self._batch, *local.shape[1:])
        return jax.make_array_from_callback(shape, self._sharding(local.ndim), piece)
