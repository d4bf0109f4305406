"""Process start-up: devices, compilation cache, signals."""

import contextlib
import hashlib
import os
import pathlib
import platform
import signal
import subprocess
import time
import warnings
from types import FrameType

import jax
from jax._src import compilation_cache  # how entries are packed is not public


def configure() -> None:
    """Sets what must hold before the first computation of a process.

    Random bits must not depend on the sharding; compiled programs are kept for the next start
    (`JAX_COMPILATION_CACHE_DIR` overrides where).
    """
    jax.config.update("jax_threefry_partitionable", True)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    if jax.default_backend() == "cpu" and jax.process_count() > 1:
        # JAX's key differs by process there, so that process 0 alone would find its programs, and
        # gloo waits no longer than 30 s for those that still compile.
        jax.config.update("jax_enable_compilation_cache", False)
    elif "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = pathlib.Path.home() / ".cache" / "nt-jax" / "xla"
        if jax.default_backend() == "cpu":
            folder = folder / f"cpu-{_processor()}"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        if jax.process_index() == 0:
            _drop_torn(folder)
    # Of what another process is just writing; it is compiled here then.
    warnings.filterwarnings("ignore", message="Error reading persistent compilation cache")


def _processor() -> str:
    """Tells processors apart: XLA compiles for every instruction that this one has, and a program
    from another one may use instructions that are absent here."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    told = sorted({line for line in lines if line.partition("\t")[0].strip() in names})
    text = "\n".join([platform.machine(), platform.processor(), *told])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _drop_torn(folder: pathlib.Path) -> None:
    """Removes programs that a killed process has left half written: JAX never writes them anew.

    Only those that came since the last look are read.
    """
    marker, now = folder / ".looked", time.time()
    since = marker.stat().st_mtime if marker.exists() else 0.0
    for entry in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):
            if entry.stat().st_mtime < since:
                continue
            try:
                compilation_cache.decompress_executable(entry.read_bytes())
            except FileNotFoundError:
                continue
            except Exception:  # zlib's or zstandard's own, whichever JAX found
                entry.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()
    os.utime(marker, (now, now))


class StopSignal:
    """Turns SIGTERM and SIGINT into a flag that the loop reads between steps."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
        }

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        # A second signal of the kind ends the process at once, as people expect of Ctrl-C.
        signal.signal(number, self._previous[signal.Signals(number)] or signal.SIG_DFL)

    def restore(self) -> None:
        """Puts the previous handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)


def versions() -> dict[str, str]:
    """Versions of what computes, for config.json."""
    from importlib.metadata import version

    names = ("nt-jax", "jax", "jaxlib", "dm-haiku", "optax", "orbax-checkpoint", "grain", "numpy")
    return {name: version(name) for name in names}


def git_revision() -> str | None:
    """Commit of the checkout this package runs from; None outside one."""
    folder = pathlib.Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "-C", os.fspath(folder), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
