"""The `joblib` files of the published JAX layout: {module: {name: array}}.

Files are read as data (see `pickled`), array by array and straight from the disk, and written the
same way, without joblib. What is written, `joblib.load` reads with the same types and bits.
"""

import bz2
import contextlib
import lzma
import pathlib
import pickle
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from nt_jax.errors import InputError
from nt_jax.files import replacing
from nt_jax.interchange.pickled import PickleReader
from nt_jax.interchange.pickled_arrays import ARRAY_NAMES
from nt_jax.interchange.stored_array import StoredArray, Unreadable, plain_dtype

_CHUNK = 1 << 20
# Weights hardly shrink; a small file that fills the disk is an attack.
_MOST_EXPANSION = 100
_ALWAYS_ALLOWED = 1 << 30
_MOST_MEMORY = 1 << 28
_LONGEST_NAME = 1000
# As joblib does: elements start at multiples of this.
_ALIGNMENT = 16


def read_tree(path: pathlib.Path) -> dict[str, StoredArray]:
    """Arrays of a file by name (`MODULE/ARRAY`), in its order.

    Nothing that the file asks for is run, and no array is read before it is asked for. Compressed
    files (zlib, gzip, bz2, lzma, xz) are first unpacked into an unnamed file in the folder for
    temporary files (TMPDIR). Arrays that were pickled with protocol 2 are held in memory.

    Raises InputError when the file cannot be read, is damaged, or holds anything but modules of
    arrays of numbers.
    """
    try:
        return _flat(PickleReader(_open(path), ARRAY_NAMES).load())
    except Unreadable as error:
        raise InputError(
            f"{path}: {error}; expected a joblib file of {{module: {{name: array}}}}"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def write_tree(path: pathlib.Path, names: Iterable[str], read: Callable[[str], np.ndarray]) -> None:
    """Writes arrays in one move, holding one of them at a time; `read` gives those of `names`.

    A name is `MODULE/ARRAY`, in printable characters. Raises ValueError for arrays of other things
    than numbers.
    """
    modules: dict[str, list[str]] = {}
    for name in names:
        modules.setdefault(name.rpartition("/")[0], []).append(name)
    with replacing(path) as file:
        file.write(pickle.PROTO + b"\x03" + pickle.EMPTY_DICT)
        for module, members in modules.items():
            file.write(_pickled(module) + pickle.EMPTY_DICT)
            for name in members:
                file.write(_pickled(name.rpartition("/")[2]))
                _write_array(file, np.asarray(read(name)), name)
                file.write(pickle.SETITEM)
            file.write(pickle.SETITEM)
        file.write(pickle.STOP)


def _write_array(file: BinaryIO, array: np.ndarray, name: str) -> None:
    """joblib's wrapper, a padding that starts with its own length, and the elements."""
    array = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
    try:
        plain_dtype(array.dtype.name if array.dtype.kind == "V" else array.dtype.str[1:])
    except Unreadable:
        raise ValueError(f"{name} is of type {array.dtype}, not of numbers") from None
    wrapper = {
        "subclass": np.ndarray,
        "shape": array.shape,
        "order": "C",
        "dtype": array.dtype,
        "allow_mmap": True,
        "numpy_array_alignment_bytes": _ALIGNMENT,
    }
    file.write(pickle.GLOBAL + b"joblib.numpy_pickle\nNumpyArrayWrapper\n")
    file.write(pickle.EMPTY_TUPLE + pickle.NEWOBJ + _pickled(wrapper) + pickle.BUILD)
    padding = -(file.tell() + 1) % _ALIGNMENT
    file.write(bytes([padding]) + b"\xff" * padding)
    # Not all types can be written as they are; bytes can.
    file.write(array.reshape(-1).view(np.uint8).data)


def _pickled(value: Any) -> bytes:
    """Instructions that put a value on the stack: a pickle without beginning and end."""
    return pickle.dumps(value, protocol=3)[2:-1]


def _flat(tree: Any) -> dict[str, StoredArray]:
    arrays: dict[str, StoredArray] = {}
    for module, named in _items(tree):
        for name, array in _items(named):
            full = f"{module}/{name}"
            if not full.isprintable() or len(full) > _LONGEST_NAME:
                raise Unreadable("holds an array whose name is no short line of text")
            if not isinstance(array, StoredArray) or not array.defined:
                raise Unreadable(f"holds at {full!r} what is no array")
            if full in arrays:
                raise Unreadable(f"holds {full!r} twice")
            arrays[full] = array
    return arrays


def _items(tree: Any) -> Iterable[tuple[str, Any]]:
    if type(tree) is not dict:
        raise Unreadable("is no dictionary of dictionaries")
    return tree.items()


def _open(path: pathlib.Path) -> BinaryIO:
    """The file, or what it unpacks to."""
    file = path.open("rb")
    magic = file.read(8)
    file.seek(0)
    if magic.startswith(pickle.PROTO):
        return file
    with file:
        for prefix, unpack in _UNPACK.items():
            if magic.startswith(prefix):
                return _unpacked(path, unpack(file))
    for prefix, what in _REFUSED.items():
        if magic.startswith(prefix):
            raise Unreadable(f"{what}; load it where it was written and dump it uncompressed")
    raise Unreadable("is empty" if not magic else "starts like no joblib file")


def _unpacked(path: pathlib.Path, chunks: Iterator[bytes]) -> BinaryIO:
    most = max(_ALWAYS_ALLOWED, _MOST_EXPANSION * path.stat().st_size)
    with contextlib.ExitStack() as on_failure:
        try:
            target = on_failure.enter_context(tempfile.TemporaryFile())
            for chunk in chunks:
                if target.tell() + len(chunk) > most:
                    raise Unreadable(f"unpacks to more than {_MOST_EXPANSION} times its size")
                target.write(chunk)
            target.flush()
        except OSError as error:
            # Nothing more can be written, so closing fails too.
            with contextlib.suppress(OSError):
                on_failure.close()
            raise InputError(
                f"{path}: cannot be unpacked in {tempfile.gettempdir()}: {error.strerror}; set "
                "TMPDIR to a folder with room for it"
            ) from None
        on_failure.pop_all()
    return target


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    """zlib and gzip, in pieces of at most a chunk."""
    # 32: find out which of the two it is.
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
    while not stream.eof:
        packed = stream.unconsumed_tail or file.read(_CHUNK)
        try:
            chunk = stream.decompress(packed, _CHUNK)
        except zlib.error:
            raise Unreadable("is damaged") from None
        if not packed and not chunk:
            raise Unreadable("ends early")
        yield chunk
    _check_end(file, stream.unused_data)


def _expanded(
    file: BinaryIO, stream: bz2.BZ2Decompressor | lzma.LZMADecompressor
) -> Iterator[bytes]:
    """bz2, lzma and xz, in pieces of at most a chunk."""
    while not stream.eof:
        packed = file.read(_CHUNK) if stream.needs_input else b""
        if stream.needs_input and not packed:
            raise Unreadable("ends early")
        try:
            yield stream.decompress(packed, _CHUNK)
        except (OSError, lzma.LZMAError):
            raise Unreadable("is damaged") from None
    _check_end(file, stream.unused_data)


def _check_end(file: BinaryIO, unused: bytes) -> None:
    if unused or file.read(1):
        raise Unreadable("goes on after its end")


_UNPACK: dict[bytes, Callable[[BinaryIO], Iterator[bytes]]] = {
    b"\x78": _inflated,
    b"\x1f\x8b": _inflated,
    b"BZ": lambda file: _expanded(file, bz2.BZ2Decompressor()),
    b"\x5d\x00": lambda file: _expanded(file, lzma.LZMADecompressor(memlimit=_MOST_MEMORY)),
    b"\xfd7zXZ": lambda file: _expanded(file, lzma.LZMADecompressor(memlimit=_MOST_MEMORY)),
}
_REFUSED = {
    b"\x04\x22\x4d\x18": "is compressed with lz4",
    b"ZF": "was written by joblib before 0.10",
}
