"""What a file should be, as its manifest says, and whether it is."""

import dataclasses
import hashlib
import pathlib

from nt_jax.errors import InputError


class MismatchError(InputError):
    """A file is not what its manifest says; the message has both."""


@dataclasses.dataclass(frozen=True)
class Expected:
    """What is known of a file; either may be missing."""

    checksum: str = ""
    """`md5:HEX`, `sha256:HEX` or empty."""
    bytes: int | None = None

    @property
    def by(self) -> str:
        """What a check rests on: md5, sha256, size or nothing."""
        return self.checksum.partition(":")[0] or ("nothing" if self.bytes is None else "size")


def require(path: pathlib.Path, expected: Expected, shown: str = "") -> None:
    """Raises MismatchError unless the file has the expected size and checksum.

    `shown` names the file in the message, where its path would say little.
    """
    shown = shown or str(path)
    try:
        size = path.stat().st_size
        if expected.bytes is not None and size != expected.bytes:
            raise MismatchError(f"{shown}: expected {expected.bytes:,} bytes, found {size:,}")
        algorithm, _, wanted = expected.checksum.partition(":")
        if not algorithm:
            return
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, algorithm).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if digest != wanted:
        raise MismatchError(f"{shown}: expected {expected.checksum}, found {algorithm}:{digest}")


def listed_md5(path: pathlib.Path, file_name: str) -> str | None:
    """`md5:HEX` of a file in a list of `HEX  ./NAME` lines; None if the list does not name it.

    Raises InputError when the list cannot be read or has two checksums for the name.
    """
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    found = set()
    for line in lines:
        words = line.split(maxsplit=1)
        if len(words) == 2 and words[1].lstrip("*").removeprefix("./") == file_name:
            found.add(words[0].lower())
    if len(found) > 1:
        raise InputError(f"{path}: {file_name} stands there with two checksums; keep the right one")
    digest = next(iter(found), "")
    if digest and (len(digest) != 32 or set(digest) - set("0123456789abcdef")):
        raise InputError(f"{path}: {digest!r} of {file_name} is no MD5; fetch the list again")
    return f"md5:{digest}" if digest else None
