"""What the devices of this machine really do: rates, and some real steps."""

import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import memory
from nt_jax.config import Experiment
from nt_jax.program import Program, abstract_tokens


def device(dtype: str) -> dict[str, Any]:
    """Kind, platform and number of the devices, and what one of them can do.

    `flops` of a large matrix product and `bandwidth` of a large copy, each a second, and
    `memory_bytes`; of a CPU all of it is the whole machine's, which its devices share.
    """
    one = jax.devices()[0]
    size, elements = (1024, 2**25) if one.platform == "cpu" else (8192, 2**30)
    x = jnp.ones((size, size), dtype)
    y = jnp.ones((elements,), jnp.float32)
    return {
        "kind": one.device_kind,
        "platform": one.platform,
        "count": jax.device_count(),
        "memory_bytes": (one.memory_stats() or {}).get("bytes_limit") or _memory(),
        "flops": 2.0 * size**3 / _seconds(jax.jit(jnp.matmul), x, x),
        "bandwidth": 2.0 * y.nbytes / _seconds(jax.jit(lambda v: v + 1), y),
    }


def run(built: Program, compiled: Any, experiment: Experiment, steps: int) -> dict[str, Any]:
    """Runs `steps` train steps on random tokens after a first one.

    Returns `step_seconds` (median) and `peak_bytes` of one device (of a CPU's together).
    """
    seed = np.uint32(experiment.train.seed)
    init = built.init.lower(seed).compile()  # type: ignore[attr-defined]
    memory.collect()
    before = _resident(reset=True)
    state = init(seed)
    shape = abstract_tokens(built, experiment)
    rng = np.random.default_rng(0)
    size = built.tokenizer.vocab_size
    rows = rng.integers(size // 2, size, shape.shape, np.int32)
    tokens = jax.device_put(rows, shape.sharding)
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        state, metrics = compiled(state, tokens)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - start)
    if not np.isfinite(float(metrics["loss"])):
        raise RuntimeError("the measured step gave no finite loss")
    stats = jax.devices()[0].memory_stats() or {}
    return {
        "step_seconds": float(np.median(seconds[1:])),
        "peak_bytes": int(stats.get("peak_bytes_in_use", _resident(reset=False) - before)),
        "steps": steps,
    }


def _seconds(function: Callable[..., jax.Array], *arguments: jax.Array) -> float:
    """Fastest of several calls."""
    function(*arguments).block_until_ready()
    times = []
    for _ in range(7):
        start = time.perf_counter()
        function(*arguments).block_until_ready()
        times.append(time.perf_counter() - start)
    return min(times)


def _resident(*, reset: bool) -> int:
    """Most memory that was resident in this process since the last reset, in bytes (Linux)."""
    if reset:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    status = pathlib.Path("/proc/self/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) * 1024


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
