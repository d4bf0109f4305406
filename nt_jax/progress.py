"""How far a long job is: lines for people, and a function that is told (done, in all)."""

import contextlib
import pathlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

Progress = Callable[[int, int], None]

_SECONDS_BETWEEN_LOOKS = 0.5


def say(text: str) -> None:
    """Progress for people: a line on standard error."""
    print(text, file=sys.stderr, flush=True)


def silent(done: int, total: int) -> None:
    """Tells nobody."""


def phases(progress: Progress, shares: Sequence[int]) -> list[Progress]:
    """A Progress for each phase of a job, by the share of the time that it takes.

    Each phase counts its own bytes up to its own total; `progress` gets them as a share of that
    total, which should therefore be the same in all phases.
    """

    def phase(before: int, share: int) -> Progress:
        def report(done: int, total: int) -> None:
            part = done / total if total else 1.0
            progress(int((before + share * min(part, 1.0)) / whole * total), total)

        return report

    whole = sum(shares)
    return [phase(sum(shares[:number]), share) for number, share in enumerate(shares)]


@contextlib.contextmanager
def watching(folder: pathlib.Path, total: int, progress: Progress) -> Iterator[None]:
    """Reports the bytes of the files below `folder` while a library writes them on its own."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_SECONDS_BETWEEN_LOOKS):
            progress(min(_bytes_below(folder), total), total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    progress(total, total)


def _bytes_below(folder: pathlib.Path) -> int:
    found = 0
    for path in folder.rglob("*"):
        # Files come and go, and folders get their names, while they are looked at.
        with contextlib.suppress(OSError):
            found += path.stat().st_size
    return found
