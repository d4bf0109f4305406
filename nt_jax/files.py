"""Files that are either whole or absent."""

import os
import pathlib

_SUFFIX = ".tmp"


def write_atomically(path: pathlib.Path, content: str | bytes) -> None:
    """Replaces a file in one move; a kill leaves the old one, and at most a `.tmp` beside it."""
    temporary = path.with_name(path.name + _SUFFIX)
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def is_temporary(path: pathlib.Path) -> bool:
    """Whether `path` is what a killed `write_atomically` left."""
    return path.name.endswith(_SUFFIX)
