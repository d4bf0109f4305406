"""Fetches the assemblies of a manifest into a folder, and finds them there again.

A file lies in FOLDER/ACCESSION/NAME, and only a file that was checked has this name: it grows as
NAME.part, is checked, and is renamed. What lies on this machine already (a local row, a mirror's
folder) is checked and linked, not copied. Contents are not parsed here.
"""

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import functools
import os
import pathlib
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Sequence

from data_pipelines import checksums, downloads
from data_pipelines.checksums import Expected
from data_pipelines.downloads import TransferError
from data_pipelines.fasta import read_fasta
from data_pipelines.manifest import CHECKSUM_LIST, Assembly, Manifest
from data_pipelines.mirrors import is_url
from data_pipelines.sources import Source
from nt_jax.errors import InputError

WORKERS = 4
"""Files that are fetched at a time."""

Tell = Callable[[str, str, int, int | None], None]
"""Called with (accession, what happens to it, bytes there, bytes in all or None)."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one row of a manifest."""

    assembly: Assembly
    path: pathlib.Path
    """The file in the folder; it exists unless `error` is set."""
    how: str
    """there, linked, downloaded, or failed."""
    origin: str
    """File or url the bytes come from."""
    checked: str
    """What the check rests on: md5, sha256, size or nothing."""
    bytes: int
    """Size of the file."""
    passed_over: tuple[str, ...]
    """Places that had the file, but not as it should be, or could not be reached."""
    error: Exception | None = None
    """InputError or TransferError of a row that failed."""


def stored_path(folder: pathlib.Path, assembly: Assembly) -> pathlib.Path:
    """Where the file of a row lies once it is fetched."""
    return folder / assembly.accession / assembly.file_name


def fetch(
    manifest: Manifest,
    folder: str | os.PathLike[str],
    *,
    mirrors: Sequence[str] = (),
    workers: int = WORKERS,
    pauses: Sequence[float] = downloads.PAUSES,
    timeout: float = downloads.TIMEOUT,
    tell: Tell = lambda accession, text, there, total: None,
) -> list[Outcome]:
    """Brings every row of the manifest into the folder; one that fails does not stop the others.

    Files that are there are checked again. A download that was interrupted goes on.

    Args:
        manifest: what to fetch.
        folder: created if it is missing.
        mirrors: folders and URL prefixes that are asked before the url of a row, by the path of
            the url, by ACCESSION/NAME, and by NAME where there is something to check it by.
        workers: files at a time.
        pauses: seconds after each failure in a row of one file.
        timeout: seconds without a byte after which a connection counts as dead.
        tell: told how far each file is, from several threads.

    Returns:
        The outcome of each row, in the order of the manifest.

    Raises:
        InputError: the folder cannot be written, or another process is fetching into it.
    """
    folder = pathlib.Path(folder).absolute()
    stop = threading.Event()
    get = functools.partial(downloads.download, pauses=pauses, timeout=timeout, stop=stop)
    with _claimed(folder), concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            return list(
                pool.map(
                    lambda row: _fetch_one(manifest, row, folder, mirrors, get, tell),
                    manifest.assemblies,
                )
            )
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def sources(manifest: Manifest, folder: pathlib.Path | None = None) -> list[Source]:
    """One source a row: read where it was fetched, or in place if the row is local.

    Raises InputError when rows are not there (with the command that fetches them), or a file is
    not what its row says.
    """
    paths = [_present(manifest, assembly, folder) for assembly in manifest.assemblies]
    missing = [a for a, path in zip(manifest.assemblies, paths, strict=True) if path is None]
    if missing:
        place = f"in {folder}" if folder else "on this machine"
        raise InputError(
            f"{manifest.path}: {len(missing)} of {len(paths)} assemblies are not {place} (first: "
            f"{missing[0].accession}); run `nt-jax data fetch {manifest.path} --out "
            f"{folder or 'DIR'}` first{'' if folder else ' and give --data-dir DIR'}"
        )
    made = []
    for assembly, path in zip(manifest.assemblies, paths, strict=True):
        assert path is not None
        checksums.require(path, _expected_here(assembly, path))
        about: dict[str, str | float] = {
            "species": assembly.species,
            "genus": assembly.genus,
            "group": assembly.group,
            "weight": assembly.weight,
        }
        if assembly.remote:
            about["url"] = assembly.remote
        made.append(
            Source(
                assembly.accession,
                (path,),
                functools.partial(read_fasta, path),
                split=assembly.split,
                about=about,
            )
        )
    return made


def _present(
    manifest: Manifest, assembly: Assembly, folder: pathlib.Path | None
) -> pathlib.Path | None:
    fetched = stored_path(folder, assembly) if folder else None
    return next((p for p in (fetched, manifest.local(assembly)) if p and p.is_file()), None)


def _expected_here(assembly: Assembly, path: pathlib.Path) -> Expected:
    """What the file should be, with a list of checksums that lies beside it."""
    if assembly.checksum != CHECKSUM_LIST:
        return Expected(assembly.checksum, assembly.bytes)
    md5 = checksums.listed_md5(path.with_name(CHECKSUM_LIST), path.name)
    if md5 is None:
        raise InputError(f"{path.with_name(CHECKSUM_LIST)}: does not list {path.name}")
    return Expected(md5, assembly.bytes)


Get = Callable[..., None]


def _fetch_one(
    manifest: Manifest,
    assembly: Assembly,
    folder: pathlib.Path,
    mirrors: Sequence[str],
    get: Get,
    tell: Tell,
) -> Outcome:
    path = stored_path(folder, assembly)
    passed_over: list[str] = []
    by = "nothing"
    try:
        path.parent.mkdir(exist_ok=True)
        places = _places(manifest, assembly, mirrors)
        say = functools.partial(tell, assembly.accession)
        expected = Expected(assembly.checksum, assembly.bytes)
        if assembly.checksum == CHECKSUM_LIST:
            md5 = _from_list(path, places, get, passed_over)
            expected = Expected(md5, assembly.bytes)
        by = expected.by
        how, origin = _bring(path, places, expected, get, say, passed_over)
    except (InputError, TransferError, OSError) as error:
        shown = error
        if isinstance(error, OSError):
            shown = InputError(f"{error.filename or path}: {error.strerror}")
        tell(assembly.accession, "failed", 0, None)
        return Outcome(assembly, path, "failed", "", by, 0, tuple(passed_over), shown)
    size = path.stat().st_size
    tell(assembly.accession, how, size, size)
    return Outcome(assembly, path, how, origin, by, size, tuple(passed_over))


def _places(manifest: Manifest, assembly: Assembly, mirrors: Sequence[str]) -> list[str]:
    """Where the file may be, best first: urls and absolute paths."""
    if assembly.remote is None:
        return [str(manifest.local(assembly))]
    quoted = urllib.parse.urlsplit(assembly.remote).path.lstrip("/")
    below = [quoted, f"{assembly.accession}/{quoted.rpartition('/')[2]}"]
    if assembly.checksum or assembly.bytes is not None:
        below.append(quoted.rpartition("/")[2])
    found = []
    for mirror in mirrors:
        for place in dict.fromkeys(below):
            if is_url(mirror):
                found.append(f"{mirror.rstrip('/')}/{place}")
            else:
                found.append(os.path.join(os.path.abspath(mirror), urllib.parse.unquote(place)))
    return [*found, assembly.remote]


def _from_list(path: pathlib.Path, places: Sequence[str], get: Get, passed_over: list[str]) -> str:
    """The MD5 of the file by the list of checksums beside it; the list is kept in the folder."""
    own = path.with_name(CHECKSUM_LIST)
    if own.exists() and (md5 := checksums.listed_md5(own, path.name)):
        return md5
    problem: Exception = InputError(f"{CHECKSUM_LIST} is beside none of {', '.join(places)}")
    for place in dict.fromkeys(f"{place.rpartition('/')[0]}/{CHECKSUM_LIST}" for place in places):
        part = downloads.part_of(own)
        try:
            if is_url(place):
                get(place, part)
            elif os.path.isfile(place):
                downloads.remove_part(part)
                part.write_bytes(pathlib.Path(place).read_bytes())
            else:
                continue
            md5 = checksums.listed_md5(part, path.name)
        except (InputError, TransferError) as error:
            problem = error
            continue
        if md5:
            _finish(part, own)
            return md5
        problem = InputError(f"{place}: does not list {path.name}")
        passed_over.append(str(problem))
        downloads.remove_part(part)
    raise problem


def _bring(
    path: pathlib.Path,
    places: Sequence[str],
    expected: Expected,
    get: Get,
    say: Callable[[str, int, int | None], None],
    passed_over: list[str],
) -> tuple[str, str]:
    """(how, from where) the checked file came to its path; places that do not do are noted."""
    if path.exists():
        say("checking", path.stat().st_size, path.stat().st_size)
        try:
            checksums.require(path, expected)
            return "there", str(path)
        except checksums.MismatchError as error:
            if not path.is_symlink():
                raise InputError(f"{error}; remove it and run the same command again") from None
    if path.is_symlink():
        path.unlink()  # its target is gone or another file now
    problem: Exception | None = None
    for place in places:
        try:
            if is_url(place):
                _download(place, path, expected, get, say)
                return "downloaded", place
            if os.path.isfile(place):
                say("checking", os.path.getsize(place), os.path.getsize(place))
                checksums.require(pathlib.Path(place), expected)
                path.symlink_to(os.path.realpath(place))
                return "linked", place
            if place == places[-1]:
                raise InputError(f"{place}: no such file; correct the url of this row")
        except (InputError, TransferError) as error:
            if place == places[-1]:
                problem = error
            elif not isinstance(error, downloads.AbsentError):
                passed_over.append(str(error))
    assert problem is not None
    raise problem


def _download(
    url: str,
    path: pathlib.Path,
    expected: Expected,
    get: Get,
    say: Callable[[str, int, int | None], None],
) -> None:
    part = downloads.part_of(path)
    get(url, part, received=functools.partial(say, "fetching"))
    say("checking", part.stat().st_size, part.stat().st_size)
    try:
        checksums.require(part, expected, url)
    except checksums.MismatchError:
        downloads.remove_part(part)
        raise
    _finish(part, path)


def _finish(part: pathlib.Path, path: pathlib.Path) -> None:
    """A checked part takes its final name."""
    part.replace(path)
    downloads.remove_part(part)


@contextlib.contextmanager
def _claimed(folder: pathlib.Path) -> Iterator[None]:
    """The folder, for this process alone; the claim ends with the process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{folder}: cannot be created: {error.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process is fetching into it; wait") from None
        yield
    finally:
        os.close(handle)
