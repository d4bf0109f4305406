"""Files that are either whole or absent."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO

_SUFFIX = ".tmp"


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
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    os.replace(temporary, path)


def write_atomically(path: pathlib.Path, content: str | bytes) -> None:
    """`replacing` for content that is at hand."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def is_temporary(path: pathlib.Path) -> bool:
    """Whether `path` is what a killed `replacing` left."""
    return path.name.endswith(_SUFFIX)
