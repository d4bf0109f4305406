"""Process start-up: devices, compilation cache, signals."""

import os
import pathlib
import signal
import subprocess
from types import FrameType

import jax


def configure() -> None:
    """Sets what must hold before the first computation of a process.

    Random bits must not depend on the sharding; the compilation cache is kept for accelerators
    (`JAX_COMPILATION_CACHE_DIR` overrides where).
    """
    jax.config.update("jax_threefry_partitionable", True)
    if jax.default_backend() != "cpu" and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = pathlib.Path.home() / ".cache" / "nt-jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))


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
