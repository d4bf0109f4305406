"""Progress bars on standard error, on terminals only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


@contextmanager
def bytes_bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """A function (bytes done, bytes in all) that moves the bar."""
    with _bar(text, DownloadColumn(), TransferSpeedColumn()) as move:
        yield move


@contextmanager
def count_bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """A function (things done, things in all) that moves the bar."""
    with _bar(text, MofNCompleteColumn()) as move:
        yield move


@contextmanager
def _bar(text: str, *middle: ProgressColumn) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), *middle, TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
