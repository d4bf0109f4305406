"""What the names in pickled arrays stand for: NumPy's, joblib's, JAX's and Haiku's, old and new.

joblib puts the elements of an array as they are between the instructions, behind a
`NumpyArrayWrapper`; NumPy and JAX write them as bytes of the pickle.
"""

from collections.abc import Mapping
from typing import Any

from nt_jax.interchange.pickled import Built, Global, Make, PickleReader
from nt_jax.interchange.stored_array import StoredArray, Unreadable, nbytes, plain_dtype

_Arguments = tuple[Any, ...]


class _Type(Built):
    """`numpy.dtype`, whose byte order comes after it."""

    def __init__(self, text: Any) -> None:
        self.numpy = plain_dtype(text)
        self._text = text

    def build(self, reader: PickleReader, state: Any) -> None:
        """State: (version, byte order, subarray, names, fields, size, alignment, flags)."""
        if type(state) is not tuple or len(state) != 8 or state[2:5] != (None, None, None):
            raise Unreadable("holds elements of several fields, which are no plain numbers")
        self.numpy = plain_dtype(self._text, state[1])


class _Wrapped(StoredArray, Built):
    """`joblib.numpy_pickle.NumpyArrayWrapper` and the elements that follow it."""

    def build(self, reader: PickleReader, state: Any) -> None:
        """State: its attributes; since joblib 1.2 a padding comes before the elements."""
        if type(state) is not dict:
            raise Unreadable("is damaged")
        dtype = _numpy(state["dtype"])
        size = nbytes(dtype, state["shape"])
        if state.get("numpy_array_alignment_bytes") is not None:
            reader.skip(reader.number("<B"))
        self.define(dtype, state["shape"], state["order"], reader.skip(size))


class _Array(StoredArray, Built):
    """`numpy.ndarray`."""

    def build(self, reader: PickleReader, state: Any) -> None:
        """State: (version, shape, type, whether in Fortran order, bytes)."""
        _, shape, kind, fortran, data = state
        if type(fortran) is not bool:
            raise Unreadable("is damaged")
        self.define(_numpy(kind), shape, "F" if fortran else "C", data)


def _numpy(kind: Any) -> Any:
    if not isinstance(kind, _Type):
        raise Unreadable("an array has no valid shape or type")
    return kind.numpy


def _dtype(reader: PickleReader, arguments: _Arguments) -> _Type:
    kind = arguments[0]
    return _Type(kind.name.rpartition(".")[2] if type(kind) is Global else kind)


def _wrapper(reader: PickleReader, arguments: _Arguments) -> _Wrapped:
    return _Wrapped(reader.source)


def _array(reader: PickleReader, arguments: _Arguments) -> _Array:
    return _Array(reader.source)


def _jax_array(reader: PickleReader, arguments: _Arguments) -> _Array:
    """Function, arguments and state of the NumPy array, and what JAX knows beyond it."""
    function, _, state, _ = arguments
    if type(function) is not Global or function.make is not _array:
        raise Unreadable("an array has no plain bytes")
    array = _Array(reader.source)
    array.build(reader, state)
    return array


def _scalar(reader: PickleReader, arguments: _Arguments) -> _Array:
    kind, data = arguments
    array = _Array(reader.source)
    array.define(_numpy(kind), (), "C", data)
    return array


def _array_of_buffer(reader: PickleReader, arguments: _Arguments) -> _Array:
    """NumPy's arrays in protocol 5."""
    data, kind, shape, order = arguments[:4]
    array = _Array(reader.source)
    array.define(_numpy(kind), shape, order, data)
    return array


def _bytes(reader: PickleReader, arguments: _Arguments) -> bytes:
    """Protocol 2 has no bytes: they are texts of the characters 0 to 255."""
    text, encoding = arguments or ("", "latin1")
    if type(text) is not str or encoding != "latin1":
        raise Unreadable("is damaged")
    return text.encode("latin1")


def _dict(reader: PickleReader, arguments: _Arguments) -> dict[str, Any]:
    (content,) = arguments or ({},)
    if type(content) is not dict:
        raise Unreadable("is damaged")
    return content


def _numpy_internals(core: str) -> dict[tuple[str, str], Make | None]:
    return {
        (f"{core}.multiarray", "_reconstruct"): _array,
        (f"{core}.multiarray", "scalar"): _scalar,
        (f"{core}.numeric", "_frombuffer"): _array_of_buffer,
    }


ARRAY_NAMES: Mapping[tuple[str, str], Make | None] = {
    ("numpy", "ndarray"): None,
    ("numpy", "memmap"): None,
    ("numpy", "dtype"): _dtype,
    **_numpy_internals("numpy.core"),
    **_numpy_internals("numpy._core"),
    ("ml_dtypes", "bfloat16"): None,
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _wrapper,
    ("jax._src.array", "_reconstruct_array"): _jax_array,
    ("jax.experimental.array", "_reconstruct_array"): _jax_array,
    ("jax._src.device_array", "reconstruct_device_array"): _jax_array,
    ("_codecs", "encode"): _bytes,
    ("__builtin__", "bytes"): _bytes,
    ("collections", "OrderedDict"): _dict,
    ("haiku._src.data_structures", "FlatMapping"): _dict,
    ("haiku._src.data_structures", "frozendict"): _dict,
}
"""(module, name) -> what a call of it stands for; None is not to be called."""
