"""One file over HTTP: resumed where it stopped, and never glued together from two versions.

Bytes grow in `PART`; `PART.json` beside it says which version of which url they are. A server
that can no longer continue that version makes the download start again. Proxies are taken from
the environment (HTTPS_PROXY, NO_PROXY, ...).
"""

import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from email.message import Message

from nt_jax.errors import InputError

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds to wait after the first, second, ... failure in a row; then it is given up."""
TIMEOUT = 60.0
"""Seconds without a single byte after which a connection counts as dead."""
_LONGEST_PAUSE = 120.0
_BLOCK = 1 << 20
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

Received = Callable[[int, int | None], None]
"""Called with (bytes there, bytes in all or None)."""


class TransferError(Exception):
    """The network or the server failed, again and again; another time may do."""


class AbsentError(InputError):
    """The server has no such file."""


class _RetryError(Exception):
    """This attempt failed; `after` is the pause in seconds that the server asks for."""

    def __init__(self, reason: str, after: float | None = None):
        super().__init__(reason)
        self.after = after


@dataclasses.dataclass(frozen=True)
class _Version:
    """Which file the bytes in a part belong to."""

    url: str
    etag: str
    """Strong validator, or empty."""
    modified: str
    """Last-Modified, or empty."""
    total: int | None
    """Bytes of the whole file, where the server says so."""

    @classmethod
    def of(cls, url: str, headers: Message, total: int | None) -> "_Version":
        etag = headers.get("ETag", "")
        return cls(
            url, "" if etag.startswith("W/") else etag, headers.get("Last-Modified", ""), total
        )

    def continued_by(self, other: "_Version") -> bool:
        """Whether nothing that both sides know tells them apart."""
        return all(
            not known or not found or known == found
            for known, found in zip(
                dataclasses.astuple(self), dataclasses.astuple(other), strict=True
            )
        )


def part_of(path: pathlib.Path) -> pathlib.Path:
    """Where the bytes of a file grow."""
    return path.with_name(f"{path.name}.part")


def remove_part(part: pathlib.Path) -> None:
    """Forgets the bytes of a part and their version."""
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def download(
    url: str,
    part: pathlib.Path,
    *,
    pauses: Sequence[float] = PAUSES,
    timeout: float = TIMEOUT,
    stop: threading.Event | None = None,
    received: Received = lambda there, total: None,
) -> None:
    """Fills `part` with the whole file; goes on with the bytes that are there already.

    A failure counts as one in a row only if no byte was won since the one before.

    Args:
        url: http or https.
        part: file to fill, in a folder that exists.
        pauses: seconds after each failure in a row; there is one attempt more than pauses.
        timeout: seconds without a byte after which a connection counts as dead.
        stop: ends the download soon after it is set.
        received: told how far it is.

    Raises:
        AbsentError: the server has no such file (404, 410).
        InputError: the server refuses it otherwise (403, ...), or the part cannot be written.
        TransferError: the attempts are used up, or `stop` was set.
    """
    stop = stop or threading.Event()
    failures, furthest = 0, _size(part)
    while not stop.is_set():
        try:
            return _attempt(url, part, timeout, stop, received)
        except _RetryError as error:
            if _size(part) > furthest:
                failures, furthest = 0, _size(part)
            if failures == len(pauses):
                raise TransferError(f"{url}: {error} ({failures + 1} attempts)") from None
            stop.wait(min(_LONGEST_PAUSE, error.after or pauses[failures]))
            failures += 1
    raise TransferError(f"{url}: stopped")


def _attempt(
    url: str, part: pathlib.Path, timeout: float, stop: threading.Event, received: Received
) -> None:
    version = _stored_version(part)
    if version is None or version.url != url:
        remove_part(part)
        version = None
    have = _size(part) if version else 0
    if version and have and have == version.total:
        return
    request = urllib.request.Request(
        url, headers={"User-Agent": "nt-jax", "Accept-Encoding": "identity"}
    )
    if version and have:
        request.add_header("Range", f"bytes={have}-")
        if version.etag or version.modified:
            request.add_header("If-Range", version.etag or version.modified)
    with _network_errors(url, part):
        # An opener of its own: the one that urlopen keeps never sees a later proxy setting.
        response = urllib.request.build_opener().open(request, timeout=timeout)
    with response:
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            if version is None:
                raise _RetryError("the server sent a piece that nobody asked for")
            if not _goes_on(url, response.headers, version, have):
                remove_part(part)
                raise _RetryError("the file changed on the server; starting again")
        else:
            have = 0
            length = response.headers.get("Content-Length", "")
            version = _Version.of(url, response.headers, int(length) if length.isdigit() else None)
            _begin(part, version)
        _append(response, url, part, have, version, stop, received)


def _goes_on(url: str, headers: Message, version: _Version, have: int) -> bool:
    """Whether a partial response goes on where the stored bytes end, in the same version."""
    found = _RANGE.fullmatch(headers.get("Content-Range", ""))
    if not found or int(found[1]) != have:
        return False
    total = None if found[3] == "*" else int(found[3])
    return version.continued_by(_Version.of(url, headers, total))


def _append(
    response: http.client.HTTPResponse,
    url: str,
    part: pathlib.Path,
    have: int,
    version: _Version,
    stop: threading.Event,
    received: Received,
) -> None:
    with _writing(part), part.open("ab") as file:
        received(have, version.total)
        while True:
            if stop.is_set():
                raise TransferError(f"{url}: stopped")
            with _network_errors(url, part):
                block = response.read1(_BLOCK)
            if not block:
                break
            file.write(block)
            have += len(block)
            received(have, version.total)
        file.flush()
        os.fsync(file.fileno())
    if version.total is not None and have < version.total:
        raise _RetryError(f"the connection ended after {have:,} of {version.total:,} bytes")
    if version.total is not None and have > version.total:
        remove_part(part)
        raise _RetryError(f"{have:,} bytes came, {version.total:,} were announced")


@contextlib.contextmanager
def _network_errors(url: str, part: pathlib.Path) -> Iterator[None]:
    """What may pass becomes _RetryError, what will not InputError."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and part.exists():
            remove_part(part)
            raise _RetryError("the file changed on the server; starting again") from None
        if error.code in _TRANSIENT:
            after = error.headers.get("Retry-After", "")
            raise _RetryError(
                f"the server answers {error.code} {error.reason}",
                float(after) if after.isascii() and after.isdigit() else None,
            ) from None
        kind = AbsentError if error.code in (404, 410) else InputError
        raise kind(
            f"{url}: the server answers {error.code} {error.reason}; correct the url"
        ) from None
    except http.client.InvalidURL as error:
        raise InputError(f"{url}: {error}; correct the url") from None
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise InputError(
                f"{url}: its certificate is not trusted ({reason.verify_message}); set "
                "SSL_CERT_FILE if a proxy here signs with its own"
            ) from None
        raise _RetryError(str(reason) or type(reason).__name__) from None


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def _begin(part: pathlib.Path, version: _Version) -> None:
    """An empty part of this version; its bytes come later, so they never belong to another."""
    with _writing(part):
        remove_part(part)
        part.touch()
        _version_file(part).write_text(json.dumps(dataclasses.asdict(version)))


def _stored_version(part: pathlib.Path) -> _Version | None:
    try:
        return _Version(**json.loads(_version_file(part).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _version_file(part: pathlib.Path) -> pathlib.Path:
    return part.with_name(f"{part.name}.json")


def _size(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
