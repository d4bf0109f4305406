"""Appending to a file on a disk that may be full for a while."""

import errno
import os
import pathlib


class UnwrittenError(OSError):
    """What should be on the disk could not be written."""


class Appender:
    """Appends to a file; what finds no room waits in memory, in order, until there is some.

    `limit` bounds the bytes that wait; beyond it UnwrittenError is raised.
    """

    def __init__(self, path: pathlib.Path, limit: int = 64 << 20):
        # Unbuffered: a buffered file that fails does not say how much of it was written.
        self._file = path.open("ab", buffering=0)
        self._waiting = bytearray()
        self._limit = limit

    def write(self, data: bytes) -> OSError | None:
        """Appends `data` behind what waits; returns what went wrong, when all of it waits on."""
        self._waiting += data
        error = self.flush()
        if error is not None and len(self._waiting) > self._limit:
            raise UnwrittenError(error.errno, f"{error.strerror}; no memory to wait in", self.path)
        return error

    def flush(self) -> OSError | None:
        """Tries to write what waits."""
        while self._waiting:
            try:
                written = os.write(self._file.fileno(), self._waiting)
            except OSError as error:
                return error
            del self._waiting[:written]
        return None

    def sync(self) -> OSError | None:
        """Tries to write what waits and forces it to the disk."""
        error = self.flush()
        if error is None:
            try:
                os.fsync(self._file.fileno())
            except OSError as failed:
                if failed.errno not in (errno.EINVAL, errno.ENOTSUP):  # a pipe, a device
                    return failed
        return error

    @property
    def path(self) -> str:
        """Name of the file."""
        return str(self._file.name)

    @property
    def waiting(self) -> bytes:
        """What has not been written."""
        return bytes(self._waiting)

    def close(self) -> None:
        """Closes the file; what still waits is dropped."""
        self._file.close()
