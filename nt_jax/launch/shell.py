"""Commands of other programs: run, or printed as they would be run."""

import dataclasses
import os
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from nt_jax.errors import InputError


def say(text: str) -> None:
    """A line of progress on standard error."""
    print(text, file=sys.stderr, flush=True)


def quoted(command: Sequence[str], variables: Mapping[str, str] | None = None) -> str:
    """One line to paste into a POSIX shell: `NAME=value program 'an argument'`."""
    settings = [f"{name}={shlex.quote(value)}" for name, value in (variables or {}).items()]
    return " ".join([*settings, shlex.join(command)])


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command gave back."""

    code: int
    """Exit code; negative where a signal ended it."""
    output: str
    """Its standard output."""
    errors: str = ""
    """Its standard error."""

    def reason(self) -> str:
        """Its last line, for an error message."""
        lines = (self.errors or self.output).strip().splitlines()
        return lines[-1].strip() if lines else f"exit code {self.code}"


class Shell:
    """Runs commands and writes files."""

    def run(self, command: Sequence[str], dry: str = "") -> Result:
        """Runs to the end; `dry` is the standard output that a dry run goes on with."""
        with self._start(command, subprocess.PIPE) as process:
            output, errors = process.communicate()
        return Result(process.returncode, output, errors)

    def stream(self, command: Sequence[str], line: Callable[[str], None], dry: str = "") -> int:
        """Runs to the end, hands over each line of both outputs; returns the exit code.

        `dry` is the line that a dry run goes on with.
        """
        with self._start(command, subprocess.STDOUT) as process:
            assert process.stdout is not None
            try:
                for text in process.stdout:
                    line(text.rstrip("\n"))
            except BaseException:
                process.terminate()
                raise
        return process.returncode

    def _start(self, command: Sequence[str], errors: int) -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                text=True, errors="replace",
            )  # fmt: skip
        except FileNotFoundError:
            raise InputError(
                f"{command[0]}: no such program on PATH; install it, or see what would run with "
                "--dry-run"
            ) from None

    def make_folder(self, path: pathlib.Path) -> None:
        """Makes a folder where there is none."""
        path.mkdir(parents=True, exist_ok=True)

    def write(self, path: pathlib.Path, text: str) -> None:
        """Writes a file, in a folder that is there."""
        path.write_text(text)

    def wait(self, seconds: float) -> None:
        """Lets time pass."""
        time.sleep(seconds)


class DryShell(Shell):
    """Prints commands and files on standard output; every command succeeds, nothing is touched."""

    def run(self, command: Sequence[str], dry: str = "") -> Result:
        """Prints it; it has succeeded with the output `dry`."""
        print(quoted(command))
        return Result(0, dry)

    def stream(self, command: Sequence[str], line: Callable[[str], None], dry: str = "") -> int:
        """Prints it; it has succeeded with the line `dry`."""
        print(quoted(command))
        if dry:
            line(dry)
        return 0

    def make_folder(self, path: pathlib.Path) -> None:
        """Prints the command."""
        print(quoted(["mkdir", "-p", os.fspath(path)]))

    def write(self, path: pathlib.Path, text: str) -> None:
        """Prints it as a heredoc, so that this too can be pasted."""
        print(f"cat > {shlex.quote(os.fspath(path))} <<'END_OF_FILE'\n{text}END_OF_FILE")

    def wait(self, seconds: float) -> None:
        """Goes on at once."""
