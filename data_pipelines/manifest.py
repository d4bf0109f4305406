"""The manifest of assemblies: one line a genome, tab-separated, for people and for programs.

The header names nine columns, in any order. `accession`, `species`, `group` and `url` are filled
in every row; the others may be empty:

    accession  letters, digits, `.`, `_`, `-`; unique; names the source in every record
    species, genus, group  group is one of GROUPS or any other word
    url        http, https or ftp (fetched as https), file:, or a path relative to the manifest
    checksum   md5:HEX, sha256:HEX, or `md5checksums.txt`: the MD5 which the file of that name
               beside the url lists, as NCBI publishes it
    bytes      size of the file as it is downloaded
    split      train, validation or test, in all rows or in none
    weight     relative to the other rows; empty means 1

Lines that start with `#` are comments.
"""

import collections
import dataclasses
import math
import os
import pathlib
import re
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from data_pipelines.windows import SPLITS
from nt_jax.errors import InputError, nearest

GROUPS = (
    "bacteria",
    "fungi",
    "invertebrate",
    "protozoa",
    "vertebrate_mammalian",
    "vertebrate_other",
)
"""The groups of the published multispecies set, in RefSeq's words."""
CHECKSUM_LIST = "md5checksums.txt"
"""Name of NCBI's list of checksums; as a value of `checksum`, the list beside the url."""
_ACCESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CHECKSUM = re.compile(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}")
_REMOTE = ("http", "https", "ftp")


@dataclasses.dataclass(frozen=True)
class Assembly:
    """One row of a manifest."""

    accession: str
    """Unique; the name of the source in every record."""
    species: str
    """Name for people."""
    genus: str
    """May be empty."""
    group: str
    """One of GROUPS or any other word."""
    url: str
    """As it is written: http(s), ftp, file: or a path."""
    checksum: str
    """`md5:HEX`, `sha256:HEX`, CHECKSUM_LIST or empty."""
    bytes: int | None
    """Size of the file, where it is known."""
    split: str
    """Split of the whole assembly; empty: the build decides."""
    weight: float
    """Positive, relative to the other rows."""

    @property
    def file_name(self) -> str:
        """Last part of the url."""
        return _file_name(self.url)

    @property
    def remote(self) -> str | None:
        """The http(s) url to ask; None for a local file."""
        scheme, separator, rest = self.url.partition("://")
        if not separator or scheme.lower() not in _REMOTE:
            return None
        return f"https://{rest}" if scheme.lower() == "ftp" else self.url


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a manifest file holds."""

    path: pathlib.Path
    """The file; relative paths in it start at its folder."""
    assemblies: tuple[Assembly, ...]
    """In the order of the file."""

    def local(self, assembly: Assembly) -> pathlib.Path | None:
        """Absolute path of a local file; None for a remote one."""
        if assembly.remote is not None:
            return None
        if assembly.url.lower().startswith("file:"):
            return pathlib.Path(urllib.parse.unquote(urllib.parse.urlsplit(assembly.url).path))
        return self.path.absolute().parent / assembly.url

    def groups(self) -> dict[str, int]:
        """Rows of each group; those of the published set come first."""
        counts = collections.Counter(assembly.group for assembly in self.assemblies)
        return {group: counts[group] for group in sorted(counts, key=group_order)}


def group_order(group: str) -> tuple[int, str]:
    """Sort key: the groups of the published set in their order, then the others by name."""
    return (GROUPS.index(group) if group in GROUPS else len(GROUPS), group)


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """The rows of a manifest.

    Raises InputError with the file, line and column for a missing or unknown column, a value that
    is none, an accession given twice, and a split that only some rows have.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; give the path of a manifest"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no text in UTF-8 (byte {error.start}); convert it") from None
    lines = [
        (number, line.rstrip("\r"))
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip() and not line.startswith("#")
    ]
    if not lines:
        raise InputError(f"{path}: no header in it; its columns are {' '.join(_COLUMNS)}")
    header = _header(path, *lines[0])
    rows = [(number, _row(f"{path}: line {number}", header, line)) for number, line in lines[1:]]
    if not rows:
        raise InputError(f"{path}: no assembly in it; only a header")
    _require_consistent(path, rows)
    return Manifest(path, tuple(assembly for _, assembly in rows))


def write_manifest(
    path: str | os.PathLike[str], assemblies: Sequence[Assembly], comments: Iterable[str] = ()
) -> None:
    """Writes the rows, `comments` above them; the file appears whole or not at all.

    Raises InputError for what `read_manifest` would refuse.
    """
    path = pathlib.Path(path)
    lines = [f"# {' '.join(comment.split())}" for comment in comments]
    lines.append("\t".join(_COLUMNS))
    rows = []
    for assembly in assemblies:
        line = "\t".join(_text(getattr(assembly, column)) for column in _COLUMNS)
        if len(line.splitlines()) != 1 or _row(str(path), list(_COLUMNS), line) != assembly:
            raise InputError(f"{path}: {assembly.accession!r} cannot be written as one line")
        rows.append((len(lines) + 1, assembly))
        lines.append(line)
    _require_consistent(path, rows)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def _header(path: pathlib.Path, number: int, line: str) -> list[str]:
    header = [name.strip() for name in line.split("\t")]
    where = f"{path}: line {number}"
    for name in header:
        if name not in _COLUMNS:
            raise InputError(
                f"{where}: unknown column {name!r}{nearest(name, _COLUMNS)}; the columns, "
                f"separated by tabs, are {' '.join(_COLUMNS)}"
            )
        if header.count(name) > 1:
            raise InputError(f"{where}: column {name} is there twice; remove one")
    for name in _COLUMNS:
        if name not in header:
            raise InputError(f"{where}: column {name} is missing; add it (it may be empty)")
    return header


def _row(where: str, header: Sequence[str], line: str) -> Assembly:
    cells = [cell.strip() for cell in line.split("\t")]
    if len(cells) != len(header):
        raise InputError(
            f"{where}: {len(cells)} columns, the header has {len(header)}; separate them by one "
            "tab each"
        )
    values: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=True):
        try:
            values[name] = _COLUMNS[name](cell)
        except ValueError as error:
            raise InputError(f"{where}, column {name}: {error}") from None
    return Assembly(**values)


def _require_consistent(path: pathlib.Path, rows: Sequence[tuple[int, Assembly]]) -> None:
    """No accession twice, also where a file system ignores the case; splits in all or no rows."""
    lines: dict[str, int] = {}
    for number, assembly in rows:
        first = lines.setdefault(assembly.accession.casefold(), number)
        if first != number:
            raise InputError(
                f"{path}: line {number}, column accession: {assembly.accession} stands in line "
                f"{first} too; name each assembly once"
            )
    without = [number for number, assembly in rows if not assembly.split]
    if without and len(without) < len(rows):
        raise InputError(
            f"{path}: line {without[0]}, column split: empty, but other rows have one; fill all "
            "or none"
        )


def _file_name(url: str) -> str:
    path = urllib.parse.urlsplit(url).path if _has_scheme(url) else url
    name = path.rpartition("/")[2]
    return urllib.parse.unquote(name) if _has_scheme(url) else name


def _has_scheme(url: str) -> bool:
    return "://" in url or url.lower().startswith("file:")


def _filled(text: str) -> str:
    if not text:
        raise ValueError("empty; every row needs it")
    return text


def _accession(text: str) -> str:
    if not _ACCESSION.fullmatch(_filled(text)):
        raise ValueError(f"{text!r}: use letters, digits, '.', '_' and '-' (it names a folder)")
    return text


def _url(text: str) -> str:
    _filled(text)
    if _has_scheme(text):
        try:
            parts = urllib.parse.urlsplit(text)
            host = parts.hostname
            assert parts.port != 0
        except (ValueError, AssertionError):
            raise ValueError(f"{text!r} is no valid url") from None
        if parts.scheme not in (*_REMOTE, "file"):
            raise ValueError(
                f"{text!r}: {parts.scheme or 'this'} is not supported; use http, https, ftp, file "
                "or a path"
            )
        if re.search(r"\s", text):
            raise ValueError(f"{text!r} holds a blank; write %20")
        if parts.scheme == "file" and (host not in (None, "localhost") or parts.path[:1] != "/"):
            raise ValueError(f"{text!r}: write file:///PATH, or a path")
        if parts.scheme != "file" and not host:
            raise ValueError(f"{text!r} names no host")
    if _file_name(text) in ("", ".", "..") or "/" in _file_name(text):
        raise ValueError(f"{text!r} does not end in a file name")
    return text


def _checksum(text: str) -> str:
    if text and text != CHECKSUM_LIST and not _CHECKSUM.fullmatch(text):
        raise ValueError(
            f"{text!r}: write md5: and 32 or sha256: and 64 hexadecimal digits in lower case, "
            f"{CHECKSUM_LIST}, or nothing"
        )
    return text


def _bytes(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise ValueError(f"{text!r} is no positive whole number")
    return int(text)


def _split(text: str) -> str:
    if text and text not in SPLITS:
        raise ValueError(f"{text!r}{nearest(text, SPLITS)}; write {', '.join(SPLITS)} or nothing")
    return text


def _weight(text: str) -> float:
    try:
        weight = float(text or 1)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"{text!r}: a weight is positive and finite")
    return weight


def _text(value: str | float | None) -> str:
    if value is None:
        return ""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


_COLUMNS: dict[str, Callable[[str], Any]] = {
    "accession": _accession,
    "species": _filled,
    "genus": str,
    "group": _filled,
    "url": _url,
    "checksum": _checksum,
    "bytes": _bytes,
    "split": _split,
    "weight": _weight,
}
