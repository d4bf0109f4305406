"""Host memory of large arrays and of programs: in place, kept, and given back."""

import ctypes
import gc
import math
import mmap
import sys
from typing import Any

import numpy as np

from nt_jax import environment

# Parameters of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def let_go(array: np.ndarray) -> None:
    """Gives the pages of the mapped file back that `array` is a view of; it stays readable.

    Otherwise all that has been read of a file counts as memory of the process.
    """
    base: Any = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def aligned_empty(shape: tuple[int, ...]) -> np.ndarray:
    """Uninitialised float32 array at a multiple of 64 bytes: JAX takes it over without a copy."""
    size = 4 * math.prod(shape)
    buffer = np.empty(size + 63, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + size].view(np.float32).reshape(shape)


def keep() -> None:
    """Keeps the memory of a step for the next one, where a single CPU device computes.

    Before the first computation. XLA takes the temporary memory of a program, 1 to 2 GB for
    20M parameters, from malloc in every step and gives it back; the kernel's work on its pages is
    up to a fifth of the step (docs/performance.md). After this call malloc gives nothing back to
    the kernel, but for `release`. Programs run on the thread that calls them: malloc has a place
    for other threads each, and were the next program prepared while one runs, two such memories
    would lie side by side.
    """
    import jax  # not for those who only map files

    if sys.platform != "linux" or environment.accelerated() or jax.distributed.is_initialized():
        return
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if jax.default_backend() == "cpu" and jax.device_count() == 1:
        _malloc("mallopt", _M_MMAP_MAX, 0)
        _malloc("mallopt", _M_TRIM_THRESHOLD, -1)


def release() -> None:
    """Gives what malloc keeps back to the system; for use where other programs run than before.

    Their temporary memory has another size, and what they leave behind lies in the place of the
    former one, which then does not fit there again.
    """
    _malloc("malloc_trim", 0)


def collect() -> None:
    """Frees what nothing refers to, and releases it.

    After a restore and a compilation that is about 0.2 GB, whatever the model.
    """
    gc.collect()
    release()


def _malloc(name: str, *values: int) -> None:
    """Calls what glibc alone has; another malloc goes on as it is."""
    if sys.platform == "linux" and (function := getattr(ctypes.CDLL(None), name, None)):
        function(*values)
