"""What befalls the runs of benchmarks/chaos.py: signals, hanging loaders, a full disk, damage."""

import contextlib
import dataclasses
import os
import pathlib
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

from nt_jax.saved_steps import committed_steps
from tests.nt_jax.runs import command, environment

LIMIT = 300.0
"""Seconds after which a life counts as hanging."""
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}
KINDS = ("SIGKILL", "SIGKILL", "SIGTERM", "SIGSTOP", "hang", "full disk")
DAMAGE = ("flip", "flip", "truncate", "empty", "delete")


@dataclasses.dataclass(frozen=True)
class Event:
    """One disaster of a life."""

    kind: str
    """One of KINDS."""
    when: str
    """`seconds` after the start, so `far` through the rows that are left, or while `saving`."""
    amount: float
    """Seconds, or a share."""
    seconds: float
    """How long a process is stopped or a disk is full."""
    damage: str
    """What happens to a file of the newest checkpoint before the next life; may be nothing."""
    of_all: bool
    """Whether it strikes every process."""


class Life:
    """The processes of a run from one start to their end."""

    def __init__(self, arguments: list[object], folder: pathlib.Path, count: int):
        self._log = (folder / "stderr.txt").open("a+")
        self._begin = self._log.seek(0, os.SEEK_END)
        addresses = _addresses(count)
        self.processes = [
            subprocess.Popen(
                command(*arguments), cwd=folder.parent, stderr=self._log, stdout=self._log,
                env={**environment(), **address},
            )
            for address in addresses
        ]  # fmt: skip

    @property
    def running(self) -> bool:
        """Whether any of them has not ended."""
        return any(process.poll() is None for process in self.processes)

    def hit(self, number: signal.Signals, event: Event, rng: random.Random) -> None:
        """Sends a signal to one process or to all."""
        for process in self.processes if event.of_all else [rng.choice(self.processes)]:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    def wait(self) -> int:
        """Waits for all, as a launcher does; 0 or the first other exit code."""
        deadline = time.monotonic() + LIMIT
        while self.running:
            codes = [process.poll() for process in self.processes]
            if any(codes):  # without one of them the others get nowhere
                deadline = min(deadline, time.monotonic() + 20)
            if time.monotonic() > deadline:
                for process in self.processes:
                    process.kill()
            time.sleep(0.02)
        return next((p.returncode for p in self.processes if p.returncode), 0)

    def said(self) -> str:
        """What the processes wrote to standard error."""
        self._log.flush()
        self._log.seek(self._begin)
        return self._log.read()


def _addresses(count: int) -> list[dict[str, str]]:
    if count == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        {
            "NT_JAX_COORDINATOR": f"127.0.0.1:{port}",
            "NT_JAX_PROCESS_COUNT": str(count),
            "NT_JAX_PROCESS_ID": str(i),
        }
        for i in range(count)
    ]


def row_count(workdir: pathlib.Path) -> int:
    """Rows of metrics.jsonl by now."""
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _saving(workdir: pathlib.Path) -> bool:
    saves = workdir / "checkpoints"
    return saves.is_dir() and any("orbax-checkpoint-tmp" in entry.name for entry in saves.iterdir())


def wait_for(life: Life, event: Event, workdir: pathlib.Path, total: int) -> bool:
    """Waits until the event is due; whether the life still runs then."""
    began, before = time.monotonic(), row_count(workdir)
    goal = before + event.amount * (total - before)
    due: dict[str, Callable[[], bool]] = {
        "seconds": lambda: time.monotonic() - began > event.amount,
        "far": lambda: before < goal <= row_count(workdir),
        "saving": lambda: row_count(workdir) > before and _saving(workdir),
    }
    while life.running and not due[event.when]():
        time.sleep(0.002)
        before = min(before, row_count(workdir))  # rows beyond the checkpoint have been cut
    return life.running


def loaders(process: int) -> list[int]:
    """Loader processes of a process."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == process:
                text = (path.parent / "cmdline").read_bytes()
                if b"spawn_main" in text:
                    found.append(int(path.parent.name))
    return found


@contextlib.contextmanager
def _full(workdir: pathlib.Path) -> Iterator[None]:
    """No byte is left on the disk of the workdir."""
    filler = workdir / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x")
    yield
    filler.unlink()


def strike(life: Life, event: Event, workdir: pathlib.Path, rng: random.Random) -> None:
    """Lets the disaster happen."""
    if event.kind in SIGNALS:
        life.hit(SIGNALS[event.kind], event, rng)
    elif event.kind == "SIGSTOP":
        life.hit(signal.SIGSTOP, event, rng)
        time.sleep(event.seconds)
        for process in life.processes:
            process.send_signal(signal.SIGCONT)
    elif event.kind == "hang":
        for loader in loaders(life.processes[-1].pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(loader, signal.SIGSTOP)
    else:
        with _full(workdir):
            time.sleep(event.seconds)


def damage(workdir: pathlib.Path, how: str, rng: random.Random) -> str:
    """Damages a random file of the newest checkpoint; says what was done."""
    saves = workdir / "checkpoints"
    steps = committed_steps(saves)
    if not steps:
        return ""
    files = sorted(path for path in (saves / str(steps[-1])).rglob("*") if path.is_file())
    path = rng.choice(files)
    content = bytearray(path.read_bytes())
    if how == "delete":
        path.unlink()
    elif how == "flip" and content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    else:
        path.write_bytes(b"" if how == "empty" else content[: len(content) // 2])
    return f"{how} {path.relative_to(saves)} (of {len(steps)} checkpoints)"
