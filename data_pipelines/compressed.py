"""Files that may be plain, gzip or BGZF, told apart by their first bytes, never by their names."""

import contextlib
import gzip
import io
import os
import pathlib
import struct
import zlib
from collections.abc import Iterator
from typing import IO

from nt_jax.errors import InputError

_BGZF_EOF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""The empty block that ends every complete BGZF file (SAM specification, section 4.1.2)."""
_FOREIGN = {
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


@contextlib.contextmanager
def opened(path: pathlib.Path, kind: str) -> Iterator[IO[bytes]]:
    """Uncompressed bytes of the file; damage met while reading becomes an InputError.

    `kind` says in messages what the file should be, such as "FASTA".
    """
    try:
        with path.open("rb") as raw:
            head = raw.read(18)
            if not head:
                raise InputError(f"{path}: the file is empty; give a {kind} file")
            for magic, archive in _FOREIGN.items():
                if head.startswith(magic):
                    raise InputError(
                        f"{path}: {archive} archive; decompress it, or use gzip or bgzip"
                    )
            if head[:2] != b"\x1f\x8b":
                raw.seek(0)
                yield raw
                return
            require_bgzf_end(path, raw, head)
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw, mode="rb") as inflated:
                yield io.BufferedReader(inflated, 1 << 20)  # type: ignore[type-var]
    except EOFError:
        raise InputError(f"{path}: gzip data end too early; copy or download it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path}: damaged gzip data ({error}); copy or download it again"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def require_bgzf_end(path: pathlib.Path, raw: IO[bytes], head: bytes) -> None:
    """A BGZF file cut between two blocks is valid gzip: only its last block tells.

    `raw` is the open file, `head` its first 18 bytes. Raises InputError.
    """
    is_bgzf = len(head) >= 18 and head[3] & 4 and head[12:14] == b"BC"
    if not is_bgzf or struct.unpack("<H", head[14:16])[0] != 2:
        return
    size = raw.seek(0, os.SEEK_END)
    raw.seek(max(0, size - len(_BGZF_EOF)))
    if raw.read() != _BGZF_EOF:
        raise InputError(
            f"{path}: bgzip file without its end-of-file block, so it was cut off at {size} "
            "bytes; copy or download it again"
        )
