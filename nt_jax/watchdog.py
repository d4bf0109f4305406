"""Ends a process in which nothing happens any more, and shows where it hangs.

A hung collective, file system or loader never returns, and a launcher cannot tell it from work.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
import time
from typing import Protocol, runtime_checkable

from nt_jax.config import ConfigError

FOLDER = "logs"
EXIT = 1
GRACE = 1_800.0
"""Seconds that phases other than the steps have at least."""
_STDERR = 2
_QUICK = ("step", "input")


@runtime_checkable
class Progress(Protocol):
    """What the loop says of itself."""

    phase: str
    step: int
    beats: int


class Watchdog:
    """A thread that looks for beats; without one for `seconds`, stacks are shown and the process
    exits with 1 (0 seconds: there is no thread).

    Time in which the process itself was stopped (a suspended machine, SIGSTOP) does not count.
    """

    def __init__(self, workdir: pathlib.Path, seconds: float, process: int, watched: Progress):
        if seconds < 0:
            raise ConfigError(f"train.watchdog_seconds={seconds:g} is below 0 (0 is off)")
        self._folder, self._seconds = workdir / FOLDER, seconds
        self._process, self._watched = process, watched
        # For people who do not want to wait: `kill -USR1 PID` shows the stacks, and nothing ends.
        faulthandler.register(signal.SIGUSR1, file=_STDERR)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        if seconds > 0:
            self._thread.start()

    def _limit(self) -> float:
        quick = self._watched.phase in _QUICK
        return self._seconds if quick else max(self._seconds, GRACE)

    def _watch(self) -> None:
        tick = min(1.0, self._seconds / 10)
        beats, waited, looked = -1, 0.0, time.monotonic()
        while not self._done.wait(tick):
            now = time.monotonic()
            waited += min(now - looked, 2 * tick)
            looked = now
            if self._watched.beats != beats:
                beats, waited = self._watched.beats, 0.0
            if waited >= self._limit():
                self._end(waited)
            # Code that hangs with Python's lock held stops this thread too, but not this timer.
            _arm(max(self._seconds, GRACE) + 60)

    def _end(self, waited: float) -> None:
        try:
            text = (
                f"process {self._process}: no sign of life for {waited:.0f} s in phase "
                f"{self._watched.phase!r} at step {self._watched.step} (train.watchdog_seconds)"
            )
            name = f"hang-{self._process:04d}-{time.strftime('%Y%m%d-%H%M%S')}.txt"
            print(f"nt-jax: {text}; stacks follow and are in {self._folder / name}; the process "
                  "ends, the same command goes on from the last checkpoint",
                  file=sys.__stderr__, flush=True)  # fmt: skip
            with contextlib.suppress(Exception):
                faulthandler.dump_traceback(_STDERR)
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / name).open("w") as file:
                file.write(f"{text}\n\n")
                file.flush()
                faulthandler.dump_traceback(file)
            # A loader process that is stopped or stuck would stay behind.
            for child in multiprocessing.active_children():
                child.kill()
        finally:
            os._exit(EXIT)

    def stop(self) -> None:
        """Ends the thread."""
        self._done.set()
        if self._seconds > 0:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()


def _arm(seconds: float) -> None:
    with contextlib.suppress(Exception):
        faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)
