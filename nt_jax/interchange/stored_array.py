"""Arrays that stay in their file until they are read."""

import math
import mmap
import weakref
from typing import Any, BinaryIO, Literal, NamedTuple

import ml_dtypes
import numpy as np

_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_TYPES = {text: np.dtype(text) for text in _NUMBERS} | {"bfloat16": np.dtype(ml_dtypes.bfloat16)}
_MOST_AXES = 32


class Unreadable(Exception):
    """The content is no checkpoint of arrays; the message says why, without the file's name."""


class Span(NamedTuple):
    """Bytes of the file."""

    offset: int
    size: int


class Source:
    """An open file, closed with the last array that refers to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        weakref.finalize(self, file.close)

    def content(self, span: Span, itemsize: int) -> tuple[Any, int]:
        """Read-only buffer with the span, and where in it the span starts.

        It is a map of the file, unless no processor could use elements of that size in place.
        """
        if span.offset % itemsize or not span.size:
            self._file.seek(span.offset)
            return self._file.read(span.size), 0
        start = span.offset - span.offset % mmap.ALLOCATIONGRANULARITY
        lead = span.offset - start
        size = lead + span.size
        pages = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ, offset=start)
        return pages, lead


class StoredArray:
    """Shape and type of an array and where its bytes are; empty until `define` fills it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._content: _Content | None = None

    @property
    def defined(self) -> bool:
        """Whether `define` has been called."""
        return self._content is not None

    def define(self, dtype: Any, shape: Any, order: Any, data: Any) -> None:
        """Checks and sets what the array is.

        Args:
            dtype: of `plain_dtype`, in the byte order of the file.
            shape: tuple of sizes.
            order: "C" or "F", how the elements are laid out.
            data: Span or bytes with exactly the elements.

        Raises:
            Unreadable: anything else, or a second definition.
        """
        if self.defined:
            raise Unreadable("an array is defined twice")
        if not isinstance(data, Span | bytes) or order not in ("C", "F"):
            raise Unreadable("an array has no plain bytes")
        if nbytes(dtype, shape) != (data.size if isinstance(data, Span) else len(data)):
            raise Unreadable("an array has more or fewer bytes than its shape")
        self._content = _Content(dtype, shape, order, data)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self._checked.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of what `read` returns: in the machine's byte order."""
        return self._checked.dtype.newbyteorder("=")

    def read(self) -> np.ndarray:
        """The array, read-only; a map of the file wherever its elements can be used in place.

        Its memory is given back when it is dropped. Elements that lie at odd addresses (those of
        pickled JAX arrays may) or in the other byte order are copied.
        """
        dtype, shape, order, data = self._checked
        buffer: Any = data
        offset = 0
        if isinstance(data, Span):
            buffer, offset = self._source.content(data, dtype.itemsize)
        array: np.ndarray = np.ndarray(shape, dtype, buffer, offset, order=order)
        array = array.astype(self.dtype, copy=False)
        array.flags.writeable = False
        return array

    @property
    def _checked(self) -> "_Content":
        assert self._content is not None, "define was not called"
        return self._content


class _Content(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    data: Span | bytes


def plain_dtype(text: Any, byteorder: Any = "=") -> np.dtype:
    """Type of numbers by NumPy's short text, or bfloat16; raises Unreadable for all others."""
    if not isinstance(text, str) or text not in _TYPES:
        name = repr(text) if isinstance(text, str) and len(text) < 20 else "another type"
        raise Unreadable(f"holds elements of {name}, which are no plain numbers")
    if byteorder not in ("<", ">", "=", "|") or (text, byteorder) == ("bfloat16", ">"):
        raise Unreadable("a type has an unknown byte order")
    return _TYPES[text].newbyteorder(byteorder)


def nbytes(dtype: Any, shape: Any) -> int:
    """Bytes of an array; raises Unreadable when the two are no type and shape of NumPy's."""
    if not isinstance(dtype, np.dtype) or type(shape) is not tuple or len(shape) > _MOST_AXES:
        raise Unreadable("an array has no valid shape or type")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise Unreadable("an array has no valid shape or type")
    # NumPy refuses empty arrays too when the other axes are too long.
    if math.prod(size or 1 for size in shape) * dtype.itemsize > np.iinfo(np.intp).max:
        raise Unreadable("an array is larger than memory can be")
    return math.prod(shape) * dtype.itemsize
