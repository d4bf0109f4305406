"""Host memory of large arrays: in place, and given back."""

import ctypes
import gc
import math
import mmap
import sys
from typing import Any

import numpy as np


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


def collect() -> None:
    """Frees what nothing refers to, and gives what malloc keeps of it back to the system.

    After a restore and a compilation that is about 0.2 GB, whatever the model.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # glibc only
            trim(0)
