"""Process start-up: devices, compilation cache, signals."""

import contextlib
import ctypes
import hashlib
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time
import warnings
from types import FrameType

import jax
from jax._src import compilation_cache  # how entries are packed is not public

from nt_jax import environment

# Parameters of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


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


def keep_memory() -> None:
    """Keeps the memory of a step for the next one, where a single CPU device computes.

    Before the first computation. XLA takes the temporary memory of a program, 1 to 2 GB for
    20M parameters, from malloc in every step and gives it back; the kernel's work on its pages is
    up to a fifth of the step (docs/performance.md). After this call malloc gives nothing back to
    the kernel, but for `release_memory`. Programs run on the thread that calls them: malloc has a
    place for other threads each, and were the next program prepared while one runs, two such
    memories would lie side by side.
    """
    if sys.platform != "linux" or environment.accelerated() or jax.distributed.is_initialized():
        return
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if jax.default_backend() == "cpu" and jax.device_count() == 1:
        _malloc("mallopt", _M_MMAP_MAX, 0)
        _malloc("mallopt", _M_TRIM_THRESHOLD, -1)


def release_memory() -> None:
    """Gives what is free back to the kernel; for use where other programs run than before.

    Their temporary memory has another size, and what they leave behind lies in the place of the
    former one, which then does not fit there again.
    """
    if jax.default_backend() == "cpu":
        _malloc("malloc_trim", 0)


def _malloc(name: str, *values: int) -> None:
    """Calls what glibc alone has; another malloc goes on as it is."""
    if sys.platform == "linux" and (function := getattr(ctypes.CDLL(None), name, None)):
        function(*values)


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
