"""Who asks the contestants: starts them, lets them take turns, sums up what they took."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""What `nt-jax` starts itself anew with on a CPU; peers run with it and without it."""
_VERSIONS = ("jax", "jaxlib", "dm-haiku", "optax", "torch", "transformers", "numpy")


_PLATFORMS = os.environ.get("JAX_PLATFORMS")


def stay_off_devices() -> None:
    """This process prepares: the devices are the contestants'. Before JAX is imported."""
    os.environ["JAX_PLATFORMS"] = "cpu"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A contestant and its settings."""

    name: str
    module: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    instead: "Entry | None" = None
    """Who takes part where this one fails."""


class FailedError(RuntimeError):
    """A contestant could not do what it was asked for."""

    def __init__(self, message: str, no_memory: bool = False):
        super().__init__(message)
        self.no_memory = no_memory


class Clock:
    """The time that a benchmark may take."""

    def __init__(self, seconds: float):
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()


class Contestant:
    """A child process that runs a module of this package."""

    def __init__(
        self, module: str, folder: pathlib.Path, clock: Clock, environment: Mapping[str, str]
    ):
        self._clock, self._log = clock, folder / f"{module}-{time.monotonic_ns()}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"peers.{module}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=_environment(folder, environment),
            )

    def ask(self, do: str, **request: Any) -> Any:
        """The answer; raises FailedError, also when the time is over."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, self._clock.left))
        if not ready:
            self.close()
            raise FailedError(f"not done with '{do}' when the time was over")
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise FailedError(f"ended in '{do}': {self._last_words()}")
        answer = json.loads(line)
        if "error" in answer:
            raise FailedError(answer["error"], answer["no_memory"])
        return answer["result"]

    def close(self) -> None:
        """Ends the process, which gives its memory back."""
        self._process.kill()
        self._process.wait()

    def _last_words(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line]
        return f"exit code {self._process.returncode}: {' '.join(lines[-1:])[-300:]}"


def _environment(folder: pathlib.Path, more: Mapping[str, str]) -> dict[str, str]:
    """A contestant's: everything it compiles is compiled anew, once."""
    paths = [str(ROOT / "benchmarks"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    ours = ("GLIBC_TUNABLES", "JAX_PLATFORMS")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return {
        **kept,
        **({} if _PLATFORMS is None else {"JAX_PLATFORMS": _PLATFORMS}),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax_cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "torch_cache"),
        "TRITON_CACHE_DIR": str(folder / "triton_cache"),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **more,
    }


def start_products(
    folder: pathlib.Path, clock: Clock, size: int, dtype: str
) -> dict[str, Contestant]:
    """Matrix products in both frameworks, where they are installed."""
    found = {}
    for name, module in (("product JAX", "ours"), ("product torch", "torch_esm")):
        child = Contestant(module, folder, clock, {})
        try:
            child.ask("begin", kind="product", size=size, dtype=dtype)
            found[name] = child
        except FailedError as error:
            print(f"{name}: {error}", file=sys.stderr)
    return found


@dataclasses.dataclass(frozen=True)
class Spread:
    """Several measurements of one thing."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Sequence[float]) -> Spread:
    """Median and extremes."""
    return Spread(statistics.median(values), min(values), max(values), len(values))


def take_turns(
    turns: Mapping[str, Callable[[], float]], rounds: int, clock: Clock, reserve: float = 0.0
) -> tuple[dict[str, list[float]], dict[str, FailedError]]:
    """Calls all of `turns`, one after the other, `rounds` times or until the time is over.

    The order turns round by round, so that nobody always comes after the same one. Who fails
    takes no further turn.
    """
    found: dict[str, list[float]] = {name: [] for name in turns}
    failed: dict[str, FailedError] = {}
    names = list(turns)
    for number in range(rounds):
        if clock.left < reserve and all(found.values()):
            break
        start = number % max(1, len(names))
        for name in names[start:] + names[:start]:
            if name in failed:
                continue
            try:
                found[name].append(turns[name]())
            except FailedError as error:
                failed[name] = error
    return found, failed


def machine() -> dict[str, Any]:
    """What the tables say of the machine."""
    versions = {}
    for name in _VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def loader_headroom(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many times the fastest of `rows` (tokens_per_s, length) the loader can feed."""
    path = RESULTS / "loader.json"
    rows = [row for row in rows if row.get("tokens_per_s")]
    if not path.is_file() or not rows:
        return ""
    loader = json.loads(path.read_text())
    fastest = max(rows, key=lambda row: row["tokens_per_s"])
    # Short sequences cost the loader more a token: the nearest that was measured.
    lengths = {row["sequence_length"] for row in loader["rows"]}
    near = min(lengths, key=lambda length: abs(length - fastest["length"]))
    best = max(r["tokens_per_s"] for r in loader["rows"] if r["sequence_length"] == near)
    return (
        f"Input: the loader makes {best / 1e6:.1f} M tokens/s ({near} tokens a sequence, "
        f"{loader['cpu_count']} cores, benchmarks/results/loader.md), "
        f"{best / fastest['tokens_per_s']:.1f} times what the fastest step above takes "
        f"({fastest['case']}: {fastest['tokens_per_s']:,.0f} tokens/s)."
    )
