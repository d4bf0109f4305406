"""Processes that belong together: started, streamed, signalled and ended as one."""

import contextlib
import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType, TracebackType
from typing import BinaryIO

from nt_jax.launch.jobs import BAD_INPUT, FINISHED, PREEMPTED
from nt_jax.launch.shell import say

_CHILD = str(pathlib.Path(__file__).with_name("child.py"))
_LOOK_SECONDS = 0.05
_writing = threading.Lock()

Command = tuple[Sequence[str], Mapping[str, str]]
"""Arguments and the environment variables that are set beside the launcher's own."""


class StillWrittenError(RuntimeError):
    """Processes of an earlier launch still write to a log."""


@contextlib.contextmanager
def writing(log: pathlib.Path, patience: float = 30.0) -> Iterator[BinaryIO]:
    """A log to append to, locked for as long as any process lives that was given it.

    Raises StillWrittenError where after `patience` seconds an earlier one still has it.
    """
    end = time.monotonic() + patience
    with log.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise StillWrittenError(f"{log}: an earlier process still runs") from None
                time.sleep(_LOOK_SECONDS)
        yield file


def is_written(log: pathlib.Path) -> bool:
    """Whether a process lives that `writing` has given this log to."""
    try:
        with log.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


class Stop:
    """SIGTERM and SIGINT to the launcher: the first is passed on as SIGTERM, the second kills."""

    def __init__(self) -> None:
        self.received = 0
        self._groups: set[Group] = set()
        self._previous = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
        }

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received += 1
        for group in tuple(self._groups):
            group.send(self._signal())

    def _signal(self) -> signal.Signals:
        return signal.SIGTERM if self.received == 1 else signal.SIGKILL

    def watch(self, group: "Group") -> None:
        """Passes signals on to `group` from now on, and one that came before."""
        self._groups.add(group)
        if self.received:
            group.send(self._signal())

    def forget(self, group: "Group") -> None:
        """The group has ended."""
        self._groups.discard(group)

    def pause(self, seconds: float) -> None:
        """Sleeps, less where a signal comes."""
        end = time.monotonic() + seconds
        while not self.received and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)

    def __enter__(self) -> "Stop":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for group in tuple(self._groups):
            group.send(signal.SIGKILL)
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)


class Group:
    """The processes of one attempt at a run; none goes on without the others.

    Each is a session of its own, so that a terminal's Ctrl-C reaches it once, through `Stop`. The
    thread that starts them must live as long as they do (prctl's PDEATHSIG looks at the thread).
    """

    def __init__(
        self, commands: Sequence[Command], label: str | None = None, log: BinaryIO | None = None
    ):
        """`label` stands before each line of theirs; None for one process that has the terminal.

        With `log` all that they print goes there.
        """
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pumps: list[threading.Thread] = []
        self._log = log
        self._seen: set[str] = set()
        try:
            for index, (command, variables) in enumerate(commands):
                self._start(index, command, variables, label)
        except BaseException:
            self.send(signal.SIGKILL)
            raise

    def _start(
        self, index: int, command: Sequence[str], variables: Mapping[str, str], label: str | None
    ) -> None:
        piped = label is not None and self._log is None
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", _CHILD, str(os.getpid()), *command],
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            stdout=subprocess.PIPE if piped else self._log,
            stderr=subprocess.STDOUT if piped or self._log else None,
        )
        self._processes.append(process)
        if piped:
            words = [word for word in (label, str(index) if index else "") if word]
            prefix = f"[{' '.join(words)}] " if words else ""
            pump = threading.Thread(target=self._pump, args=(process, prefix), daemon=True)
            pump.start()
            self._pumps.append(pump)

    def _pump(self, process: subprocess.Popen[bytes], prefix: str) -> None:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            with _writing:
                # Bad input is the same line in every process: it is said once.
                if line.startswith("nt-jax: "):
                    if line in self._seen:
                        continue
                    self._seen.add(line)
                say(prefix + line)

    def send(self, number: signal.Signals) -> None:
        """Signals every process that is left; SIGKILL takes what they started with them."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                if number == signal.SIGKILL:
                    os.killpg(process.pid, number)
                else:
                    process.send_signal(number)

    def wait(self, grace: float, saving: float) -> dict[int, int]:
        """Waits for all of them; returns exit codes by process, the first to end first.

        Once one has failed, the rest get SIGTERM and after `grace` seconds SIGKILL; once one has
        finished, or saved and stopped, they have `saving` seconds to do the same; bad input ends
        all at once.
        """
        deadline, failed = float("inf"), False
        codes: dict[int, int] = {}
        while len(codes) < len(self._processes):
            for index, process in enumerate(self._processes):
                code = process.poll()
                if code is not None:
                    codes.setdefault(index, code)
            ended = set(codes.values())
            now = time.monotonic()
            if BAD_INPUT in ended or now >= deadline:
                self.send(signal.SIGKILL)
            elif ended - {FINISHED, PREEMPTED} and not failed:
                failed, deadline = True, now + grace
                self.send(signal.SIGTERM)
            elif ended and deadline == float("inf"):
                deadline = now + saving
            time.sleep(_LOOK_SECONDS)
        # What they started and left, such as loader workers, ends with them.
        self.send(signal.SIGKILL)
        for pump in self._pumps:
            pump.join(timeout=5.0)
        return codes
