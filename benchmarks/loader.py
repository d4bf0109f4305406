"""Speed of the loader: ArrayRecord -> token batches, in tokens per second.

    python benchmarks/loader.py

Builds the S. cerevisiae genome from ../shared/data (or NT_JAX_DATA_MIRROR) into a temporary folder
and streams it in training order (random records, random offsets and strands) for 1000- and
2048-token sequences, read by threads of one process (workers 0) and by 1 and 2 worker processes.
Writes benchmarks/results/loader.json and loader.md. Expected: at least 4 M tokens/s on two cores.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipelines.builders import build
from nt_jax import data
from nt_jax.config import DataConfig
from nt_jax.tokenizers import KmerTokenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
GENOME = "genomes/species/saccharomyces_cerevisiae_R64-1-1.fa.gz"
CASES = {1000: "hf6200", 2048: "paper12k"}
"""Sequence length in tokens -> recipe."""
TARGET = 4e6
"""Tokens per second on two cores."""


def measure(stream: Iterator[np.ndarray], warm_up: int, seconds: float) -> float:
    """Tokens per second, after the buffers have been filled and emptied once."""
    for _ in itertools.islice(stream, warm_up):
        pass
    tokens, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        tokens += next(stream).size
    return tokens / elapsed


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All cases; the repeats of a case are spread over the run, as the load of the machine is."""
    mirror = pathlib.Path(os.environ.get("NT_JAX_DATA_MIRROR", ROOT.parent / "shared" / "data"))
    tokenizer = KmerTokenizer(k=6, vocabulary="v2")
    speeds: dict[tuple[int, int], list[float]] = {}
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as folder:
        sets = {
            length: data.open_dataset(
                build([mirror / GENOME], pathlib.Path(folder) / recipe, recipe=recipe).path
            )
            for length, recipe in CASES.items()
        }
        for _, length, workers in itertools.product(range(options.repeats), CASES, (0, 1, 2)):
            stream = data.train_batches(
                sets[length],
                tokenizer,
                DataConfig(sequence_length=length, workers=workers),
                global_batch=options.batch,
                seed=0,
                start_step=0,
                stop_step=10**9,
            )
            speeds.setdefault((length, workers), []).append(
                measure(stream, 8 * max(1, workers), options.seconds)
            )
            stream.close()
            load.append(os.getloadavg()[0])
    return {
        "benchmark": "loader",
        "data": "S. cerevisiae R64-1-1 (real)",
        "batch": options.batch,
        "seconds": options.seconds,
        "cpu_count": os.cpu_count(),
        "machine": platform.machine(),
        "load_average": [round(min(load), 1), round(max(load), 1)],
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("nt-jax", "grain", "array_record", "numpy")
        },
        "rows": [
            {
                "sequence_length": length,
                "recipe": CASES[length],
                "workers": workers,
                "tokens_per_s": round(statistics.median(values)),
                "best": round(max(values)),
                "worst": round(min(values)),
            }
            for (length, workers), values in sorted(speeds.items())
        ],
    }


def markdown(result: dict[str, Any]) -> str:
    """The table for the documentation."""
    low, high = result["load_average"]
    lines = [
        "# Loader: ArrayRecord to token batches",
        "",
        f"{result['data']}, random access in training order, batches of {result['batch']} "
        f"sequences, 6-mers. {result['cpu_count']} CPU cores ({result['machine']}); the load "
        f"average was {low} to {high} during the run, of which this benchmark makes 1 to 2: above "
        "that the cores were shared with other work and the figures are lower bounds. Million "
        "tokens per second, median (worst to best) of the repeats.",
        "",
        "| tokens a sequence | recipe | worker processes | M tokens/s | worst to best |",
        "|---:|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row['sequence_length']} | {row['recipe']} | {row['workers'] or 'none (threads)'} "
        f"| {row['tokens_per_s'] / 1e6:.2f} | {row['worst'] / 1e6:.2f} to {row['best'] / 1e6:.2f} |"
        for row in result["rows"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the benchmark, writes and prints the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="measured time of a repeat")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of each case")
    parser.add_argument("--batch", type=int, default=64, help="sequences of a batch")
    result = run(parser.parse_args())
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "loader.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "loader.md").write_text(markdown(result))
    print(markdown(result))
    for length in CASES:
        rows = [row for row in result["rows"] if row["sequence_length"] == length]
        best = max(row["tokens_per_s"] for row in rows)
        print(f"{length} tokens: {best / 1e6:.2f} M tokens/s, target {TARGET / 1e6:.0f}")


if __name__ == "__main__":
    main()
