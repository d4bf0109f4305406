"""cuDNN's attention beside the dense one on a GPU: how far apart they are, and how fast.

    python benchmarks/kernels_gpu.py [--out benchmarks/results] [--small]

bfloat16, forward and backward, heads of 32 to 128, whole sequences, padded ones and one of pads
alone; errors are taken from the dense attention in float32, relative to its largest value. Ends
with 1 where the kernel is more than twice as far from it as dense bfloat16 attention is (and more
than a hundredth). `--small` does the same on a CPU with JAX's own implementation in cuDNN's place.
"""

import argparse
import functools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from nt_jax import environment

environment.quiet()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from nt_jax.files import write_atomically  # noqa: E402
from nt_jax.model.attention import dense_attention  # noqa: E402
from nt_jax.model.flash import cudnn_attention  # noqa: E402

CASES = ((32, 1000, 20, 64), (16, 1000, 20, 128), (16, 2048, 16, 32), (16, 2048, 16, 48),
         (16, 2048, 16, 64), (8, 1024, 20, 75))  # fmt: skip
SMALL = ((3, 40, 2, 16), (3, 33, 2, 75))
"""(sequences, tokens, heads, head size): those of the published models."""
ROUNDS = 5


def main() -> None:
    """Compares, writes, and fails where the kernel is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benchmarks/results"))
    parser.add_argument("--small", action="store_true", help="tiny shapes, for CPUs")
    options = parser.parse_args()
    kernel: Callable[..., Any] = cudnn_attention
    if options.small:
        kernel = functools.partial(cudnn_attention, implementation="xla")
    rows = [compared(kernel, shape) for shape in (SMALL if options.small else CASES)]
    name = "kernels_small" if options.small else "kernels_gpu"
    write_atomically(options.out / f"{name}.json", json.dumps(rows, indent=1) + "\n")
    write_atomically(options.out / f"{name}.md", page(rows))
    print(page(rows))
    wrong = [row for row in rows if not row["agrees"]]
    sys.exit(f"{len(wrong)} of {len(rows)} shapes do not agree" if wrong else 0)


def compared(kernel: Callable[..., Any], shape: tuple[int, int, int, int]) -> dict[str, Any]:
    """Errors and times of one shape."""
    rows, length = shape[:2]
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for _ in range(4)]
    lengths = rng.integers(1, length + 1, rows)
    lengths[:2] = length, 0
    real = jnp.asarray(np.arange(length) < lengths[:, None])
    functions = {"kernel": gradient(kernel), "dense": gradient(dense_attention)}
    wide = [x.astype(jnp.float32) for x in arrays]
    # A few sequences: float32 scores of all would not fit.
    some = slice(0, 4)
    exact = functions["dense"](*(x[some] for x in wide), real[some])
    errors = {
        name: [
            float(jnp.max(jnp.abs(mine[some].astype(jnp.float32) - true)) / jnp.max(jnp.abs(true)))
            for mine, true in zip(function(*arrays, real), exact, strict=True)
        ]
        for name, function in functions.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(ROUNDS):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*arrays, real))
            seconds[name].append(time.perf_counter() - start)
    return {
        "shape": shape,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "errors": errors,
        "agrees": all(
            np.isfinite(mine) and mine <= max(2 * usual, 1e-2)
            for mine, usual in zip(errors["kernel"], errors["dense"], strict=True)
        ),
        "milliseconds": {name: 1e3 * statistics.median(each) for name, each in seconds.items()},
    }


def gradient(attend: Callable[..., Any]) -> Callable[..., Any]:
    """(query, key, value, weights, real) -> outputs at real tokens and the three gradients."""

    @jax.jit
    def run(query: Any, key: Any, value: Any, weights: Any, real: Any) -> Any:
        def masked(*arrays: Any) -> Any:
            return jnp.where(real[..., None, None], attend(*arrays, real), 0)

        mixed, pull = jax.vjp(masked, query, key, value)
        return mixed, *pull(weights)

    return run


def page(rows: list[dict[str, Any]]) -> str:
    """The table for the documentation."""
    lines = [
        "# Attention kernels beside dense attention, bfloat16, forward and backward",
        "",
        f"{rows[0]['device']}, JAX {rows[0]['jax']}. Largest error of output and gradients of "
        "query, key and value, relative to the largest value of float32; medians of "
        f"{ROUNDS} interleaved rounds.",
        "",
        "| sequences | tokens | heads | size | kernel's errors | dense errors | kernel | dense |",
        "|---:|---:|---:|---:|---|---|---:|---:|",
    ]
    for row in rows:
        errors = (
            ", ".join(f"{error:.1e}" for error in row["errors"][name]) for name in row["errors"]
        )
        times = (f"{row['milliseconds'][name]:.2f} ms" for name in row["milliseconds"])
        lines.append("| " + " | ".join((*map(str, row["shape"]), *errors, *times)) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
