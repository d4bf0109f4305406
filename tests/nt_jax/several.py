"""Runs of several real processes on this machine, joined by gloo, each with fake devices."""

import json
import pathlib
import socket
import subprocess
import sys
from typing import Any

from tests.nt_jax.runs import command, environment

# Notes which window fed which row, on the way to the loader's threads.
_SPY = """
import dataclasses, json, os, sys
from nt_jax import cli, data
out = open(os.environ["SPY"], "a", buffering=1)
locate = data.locate
def noted(order, step, row):
    ref = locate(order, step, row)
    out.write(json.dumps([step, row, dataclasses.astuple(ref)]) + "\\n")
    return ref
data.locate = noted
sys.exit(cli.main(sys.argv[1:]))
"""


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Processes:
    """`nt-jax ...` as `count` processes with `devices` fake devices each."""

    def __init__(
        self,
        folder: pathlib.Path,
        count: int,
        devices: int,
        *arguments: object,
        seconds: int = 200,
        own: dict[int, tuple[object, ...]] | None = None,
        absent: tuple[int, ...] = (),
    ):
        folder.mkdir(exist_ok=True)
        address, self.all = f"127.0.0.1:{free_port()}", []
        self._outputs = [folder / f"err{i}" for i in range(count)]
        self._spies = [folder / f"spy{i}" for i in range(count)]
        for i in set(range(count)) - set(absent):
            places = {
                "NT_JAX_COORDINATOR": address,
                "NT_JAX_PROCESS_COUNT": str(count),
                "NT_JAX_PROCESS_ID": str(i),
                "NT_JAX_BARRIER_SECONDS": str(seconds),
            }
            # glibc's huge pages need a new process image, which a spy would not survive.
            env = {**environment(devices), "SPY": str(self._spies[i]), "GLIBC_TUNABLES": ""}
            env |= places if count > 1 else {}
            words = command(*arguments, *(own or {}).get(i, ()))[3:]
            with self._outputs[i].open("w") as output:
                self.all.append(
                    subprocess.Popen([sys.executable, "-c", _SPY, *words], env=env, stderr=output)
                )

    def wait(self, seconds: float = 400) -> list[int]:
        """Exit codes; none survives a test that fails here."""
        try:
            return [process.wait(timeout=seconds) for process in self.all]
        finally:
            for process in self.all:
                process.kill()

    def said(self, i: int = 0) -> str:
        """Standard error of a process."""
        return self._outputs[i].read_text()

    def windows(self) -> dict[tuple[int, int], Any]:
        """(step, row) -> window, over all processes; the same whoever read it."""
        found: dict[tuple[int, int], Any] = {}
        for spy in self._spies:
            for line in spy.read_text().splitlines() if spy.exists() else ():
                step, row, ref = json.loads(line)
                assert found.setdefault((step, row), ref) == ref
        return found
