"""Files that are either whole or absent."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO

from nt_jax.errors import InputError

_SUFFIX = ".tmp"
_LOCK = ".lock"


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` once it is complete, in one move.

    An exception inside leaves what was there; a kill leaves that and at most a `.tmp` beside it.
    """
    temporary = path.with_name(path.name + _SUFFIX)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        # The system does not say which file found no room.
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        temporary.unlink(missing_ok=True)
        raise
    os.replace(temporary, path)


def write_atomically(path: pathlib.Path, content: str | bytes) -> None:
    """`replacing` for content that is at hand."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def owning(
    folder: pathlib.Path,
    complaint: str = "another process is writing results here; name another folder",
) -> Iterator[None]:
    """Keeps other processes from writing the same results; InputError where one is at it.

    The lock goes with the process, however it ends.
    """
    with (folder / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: {complaint}") from None
        yield


def is_temporary(path: pathlib.Path) -> bool:
    """Whether `path` is what a killed `replacing` left."""
    return path.name.endswith(_SUFFIX)
