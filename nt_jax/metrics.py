"""metrics.jsonl always; TensorBoard; the progress bar."""

import json
import math
import os
import pathlib
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
from tensorboardX import SummaryWriter

from nt_jax.files import write_atomically

FILE = "metrics.jsonl"


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """All complete rows; a last line torn by a kill is left out."""
    path = workdir / FILE
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def cut_back(workdir: pathlib.Path, step: int) -> None:
    """Drops the rows beyond `step`, so that a resumed run writes none twice."""
    rows = [row for row in read_metrics(workdir) if row["step"] <= step]
    write_atomically(workdir / FILE, "".join(json.dumps(row) + "\n" for row in rows))


class MetricsWriter:
    """Appends rows to metrics.jsonl and TensorBoard; one process of a run owns it."""

    def __init__(self, workdir: pathlib.Path, start_step: int):
        cut_back(workdir, start_step)
        self._file = (workdir / FILE).open("a")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start_step + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Writes one row; non-finite numbers become null, as JSON has none."""
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        self._file.write(json.dumps(clean) + "\n")
        self._file.flush()
        prefix = row.get("split", "train")
        for key, value in clean.items():
            if key not in ("step", "split") and isinstance(value, int | float):
                self._board.add_scalar(f"{prefix}/{key}", value, row["step"])

    def sync(self) -> None:
        """Forces the rows to disk; called before a checkpoint, which may only follow them."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._board.flush()

    def close(self) -> None:
        """Closes both files."""
        self.sync()
        self._file.close()
        self._board.close()


class ProgressBar:
    """Live bar on standard error; a plain line now and then where there is no terminal."""

    def __init__(self, total: int, done: int, every: int):
        self._console = Console(stderr=True)
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
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
