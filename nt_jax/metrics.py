"""metrics.jsonl always; TensorBoard; the progress bar."""

import json
import logging
import math
import pathlib
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from nt_jax import distributed
from nt_jax.appender import Appender, UnwrittenError
from nt_jax.board import Board
from nt_jax.files import write_atomically

FILE = "metrics.jsonl"
# Seconds to wait before each further attempt to write the last rows of a run.
_PAUSES = (1.0, 5.0, 30.0)
_log = logging.getLogger("nt_jax.metrics")


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """All complete rows; a last line torn by a kill is left out."""
    path = workdir / FILE
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def cut_back(workdir: pathlib.Path, step: int) -> None:
    """Drops the rows beyond `step`, so that a resumed run writes none twice."""
    path = workdir / FILE
    kept = [row for row in read_metrics(workdir) if row["step"] <= step]
    text = "".join(json.dumps(row) + "\n" for row in kept)
    # A full disk has no room for a copy, and mostly nothing is to be cut.
    if not path.exists() or path.read_text() != text:
        write_atomically(path, text)


def outputs(
    workdir: pathlib.Path, start: int, total: int, every: int
) -> tuple["MetricsWriter", "ProgressBar"]:
    """Where a run's rows and progress go: process 0 writes and shows them, the others log."""
    if distributed.leads():
        return MetricsWriter(workdir, start), ProgressBar(total, start, every)
    return RowLog(), ProgressBar(total, start, every, Console(quiet=True))


class MetricsWriter:
    """Appends rows to metrics.jsonl and TensorBoard; one process of a run owns it.

    On a disk without room rows wait in memory, which is reported, until there is some.
    """

    def __init__(self, workdir: pathlib.Path, start_step: int):
        cut_back(workdir, start_step)
        self._file = Appender(workdir / FILE)
        self._board = Board(workdir / "tensorboard", start_step + 1)
        self._failed = False

    def write(self, row: dict[str, Any]) -> None:
        """Writes one row; non-finite numbers become null, as JSON has none.

        Raises UnwrittenError when more rows wait for room than memory should hold.
        """
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        self._report(self._file.write((json.dumps(clean) + "\n").encode()))
        _log.info("%s", row)
        prefix = row.get("split", "train")
        values = {
            f"{prefix}/{key}": value
            for key, value in clean.items()
            if key not in ("step", "split") and isinstance(value, int | float)
        }
        self._board.write(values, row["step"])

    def _report(self, error: OSError | None) -> bool:
        """Says when rows begin to wait and when all are written; whether they are."""
        if error is not None and not self._failed:
            _log.error(
                "%s: %s; rows wait in memory, and no checkpoint is saved before they are written",
                self._file.path,
                error.strerror,
            )
        elif error is None and self._failed:
            _log.error("%s: there is room again, all rows are written", self._file.path)
        self._failed = error is not None
        return error is None

    def all_on_disk(self) -> bool:
        """Forces the rows to the disk; a checkpoint may only follow where that worked."""
        return self._report(self._file.sync())

    def sync(self) -> None:
        """Returns when all rows are on the disk; raises UnwrittenError after some attempts."""
        for pause in (*_PAUSES, None):
            if self.all_on_disk():
                return
            if pause is not None:
                time.sleep(pause)
        rows = self._file.waiting.count(b"\n")
        raise UnwrittenError(
            f"{self._file.path}: {rows} rows could not be written; make room, then give the same "
            "command again: it goes on from a checkpoint before them"
        )

    def close(self) -> None:
        """Closes both files."""
        self._report(self._file.flush())
        self._file.close()
        self._board.close()


class RowLog(MetricsWriter):
    """What the other processes of a run have in place of it: rows go to their own logs alone."""

    def __init__(self) -> None:
        pass

    def write(self, row: dict[str, Any]) -> None:
        """Logs one row."""
        _log.info("%s", row)

    def sync(self) -> None:
        """Nothing waits to be written."""

    def close(self) -> None:
        """Nothing is open."""


class ProgressBar:
    """Live bar on standard error; a plain line now and then where there is no terminal."""

    def __init__(self, total: int, done: int, every: int, console: Console | None = None):
        self._console = console or Console(stderr=True)
        self._total, self._every = total, every
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            speed_estimate_period=120,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=done)

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, step: int, row: dict[str, Any]) -> None:
        """Shows a train row."""
        self.show(step, f"loss {row['loss']:.4f}  {row['tokens_per_s']:,.0f} tokens/s")

    def show(self, step: int, text: str) -> None:
        """Moves the bar to `step`, with a few words beside it."""
        self._bar.update(self._task, completed=step, description=text)
        if not self._console.is_terminal and (step % self._every == 0 or step == self._total):
            self.say(f"step {step}/{self._total}  {text}")

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        _log.info("%s", text)
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
