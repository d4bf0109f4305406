"""Where the time of a run goes, over all lives of its process.

`goodput.jsonl` has a line a life, brought up to date at every save: when it began and ended, its
steps, and its seconds by phase. Rows of metrics.jsonl carry the sums, so what a killed life had
not yet written is known up to its last row.
"""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax

from nt_jax.files import write_atomically
from nt_jax.metrics import read_metrics

FILE = "goodput.jsonl"
PHASES = ("start_up", "restore", "compile", "input", "step", "save", "eval", "lost", "idle")
"""Start of the process to its first step (reading a checkpoint apart), the first step, waiting
for the loader, steps, the blocking part of saves, validation; steps that had to be done again;
from the end of a life (its last row, where it was killed) to the start of the next."""

T = TypeVar("T")
Life = dict[str, Any]


def read_lives(workdir: pathlib.Path) -> list[Life]:
    """Lines of goodput.jsonl; none where there is no such file."""
    path = workdir / FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def totals(lives: Iterable[Life]) -> dict[str, float]:
    """Seconds by phase; `step` without those that had to be done again."""
    found = dict.fromkeys(PHASES, 0.0)
    for life in lives:
        for phase in PHASES:
            found[phase] += life["seconds"].get(phase, 0.0)
    found["step"] -= found["lost"]
    return found


def share(seconds: dict[str, float]) -> float:
    """Goodput: seconds of steps that were kept, of all seconds since the first start."""
    return max(0.0, seconds["step"]) / max(sum(seconds.values()), 1e-9)


class Ledger:
    """Charges every second of this process to one phase; read by the watchdog as well."""

    def __init__(self, workdir: pathlib.Path):
        self.phase, self.step, self.beats = "start_up", 0, 0
        """What is being done, the last step that was started, a count that grows with both."""
        self._workdir = workdir
        self._since = time.perf_counter()
        self._lives = _known(workdir)
        began = time.time() - _process_age()
        ended = self._lives[-1]["ended"] if self._lives else began
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._seconds |= {"start_up": time.time() - began, "idle": max(0.0, began - ended)}
        self._life: Life = {"began": began, "first_step": 0, "seconds": self._seconds}
        self._compiled = False
        # The step on the devices: its result, when it was started, and how long one takes at best.
        self._newest: Any = None
        self._started = self._ended = 0.0
        self._shortest: float | None = None

    def enter(self, phase: str) -> None:
        """From now on time goes to `phase`."""
        now = time.perf_counter()
        self._seconds[self.phase] += now - self._since
        self.phase, self._since = phase, now
        self.beats += 1

    @contextlib.contextmanager
    def within(self, phase: str) -> Iterator[None]:
        """The same for a block; then back to the phase before."""
        before = self.phase
        self.enter(phase)
        yield
        self.enter(before)

    def beat(self) -> None:
        """Says that something within the phase got done."""
        self.beats += 1

    def goes_on(self, step: int) -> None:
        """A life, or what follows a rollback, begins at `step`: work beyond it is lost.

        Called before the rows beyond it are cut.
        """
        last = 0
        for row in read_metrics(self._workdir):
            if "split" not in row and row["step"] > step:
                seconds = row["seconds"] - row.get("input_wait", 0.0)
                self._seconds["lost"] += seconds * (row["step"] - max(last, step))
            last = row["step"]
        self._life["first_step"] = self.step = step
        self._compiled = False

    # --- The loop -----------------------------------------------------------------------------

    def feeding(self, batches: Iterable[T]) -> Iterator[T]:
        """Hands batches on. Waiting for one is charged as far as the devices had nothing to do."""
        iterator = iter(batches)
        while True:
            if self._compiled:
                self.enter("input")
            waited_from = time.perf_counter()
            batch = next(iterator, None)
            if self._compiled:
                self._forgive(waited_from)
            if batch is None:
                self.enter("start_up")
                return
            self.step += 1
            self.enter("step" if self._compiled else "compile")
            self._compiled = True
            yield batch

    def dispatched(self, result: Any) -> None:
        """A step has been handed to the devices; `result` is one of its outputs, a jax.Array."""
        self._newest, self._started = result, time.perf_counter()

    def finished(self, waited: float) -> None:
        """The step before the newest one has ended; the host had to wait `waited` seconds."""
        now = time.perf_counter()
        if waited > 1e-4:  # else it had ended some time ago, nobody knows when
            taken = now - self._ended if self._ended else None
            if taken is not None and (self._shortest is None or taken < self._shortest):
                self._shortest = taken
        self._ended = now if waited > 1e-4 else 0.0

    def _forgive(self, waited_from: float) -> None:
        """Moves the part of a wait during which the devices worked from `input` to `step`."""
        now = time.perf_counter()
        if self._newest is None:
            return
        if not self._newest.is_ready():
            hidden = now - waited_from
        elif self._shortest is None:
            hidden = 0.0
        else:
            hidden = min(max(self._started + self._shortest - waited_from, 0.0), now - waited_from)
        self._seconds["input"] -= hidden
        self._seconds["step"] += hidden

    # --- What is written ----------------------------------------------------------------------

    @property
    def input_seconds(self) -> float:
        """Seconds of this life so far in which the devices waited for data."""
        return self._seconds["input"]

    def summary(self) -> dict[str, float]:
        """Sums over all lives for a row: when, seconds by phase, goodput as a share."""
        self.enter(self.phase)
        seconds = totals([*self._lives, self._life])
        row = {"time": time.time(), **seconds, "share": share(seconds)}
        return {name: round(value, 4) for name, value in row.items()}

    def save(self, ending: str = "running") -> None:
        """Brings this life's line up to date; a full disk is no reason to stop.

        A finished run that is started again does nothing, and that is no life.
        """
        if ending == "finished" and self.step == self._life["first_step"]:
            return
        self.enter(self.phase)
        now = {"ended": time.time(), "last_step": self.step, "ending": ending}
        self._life |= now
        if jax.process_index() == 0:
            lines = [json.dumps(life) + "\n" for life in [*self._lives, self._life]]
            with contextlib.suppress(OSError):
                write_atomically(self._workdir / FILE, "".join(lines))


def _known(workdir: pathlib.Path) -> list[Life]:
    """The lives before this one, the last of them up to its last row."""
    try:
        lives = read_lives(workdir)
        rows = [row for row in read_metrics(workdir) if "goodput" in row]
    except (OSError, ValueError):  # of use to people only: a damaged one starts anew
        return []
    if lives and rows and rows[-1]["goodput"]["time"] > lives[-1]["ended"]:
        newest, before = rows[-1], totals(lives[:-1])
        sums = {phase: newest["goodput"].get(phase, 0.0) for phase in PHASES}
        seconds = {phase: sums[phase] - before[phase] for phase in PHASES}
        seconds["step"] += seconds["lost"]
        known = {"ended": newest["goodput"]["time"], "last_step": newest["step"]}
        lives[-1] |= {**known, "seconds": seconds}
    if lives and lives[-1]["ending"] == "running":
        lives[-1]["ending"] = "killed"
    return lives


def _process_age() -> float:
    """Seconds since this process was started; 0 where the system does not say."""
    try:
        ticks = int(pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0
