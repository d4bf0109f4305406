"""What survival costs: ledger, watchdog, metrics and checkpoints against the bare step.

    python benchmarks/overhead.py [--blocks 30] [--out docs/results/overhead]

Blocks of steps of one compiled program, on one state, alternate between the bare loop (dispatch,
fetch the metrics of the step before) and the loop with everything that `pretrain` adds: ledger,
watchdog, rows of metrics.jsonl and TensorBoard every 10 steps. Neighbouring blocks are compared, by
the CPU time of the whole process: on this device all work is CPU time, and other programs on the
machine do not add to it. Every fifth time a save is made in front of a bare block; what the two
take more than the block alone is the cost of the save with its checksums, blocking or not, and is
spread over `checkpoint.every` (1,000 steps by default).
Writes OUT.md and OUT.json. Some minutes of two cores.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nt_jax import program, runtime, train
from nt_jax.checkpoint import Checkpoints
from nt_jax.config import DataConfig, Experiment, ModelConfig, OptimConfig, TrainConfig
from nt_jax.ledger import Ledger
from nt_jax.metrics import MetricsWriter, ProgressBar
from nt_jax.watchdog import Watchdog

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXPERIMENT = Experiment(
    name="overhead",
    model=ModelConfig(num_layers=2, num_heads=4, embed_dim=256, ffn_dim=512, max_positions=256),
    data=DataConfig(sequence_length=128),
    optim=OptimConfig(),
    train=TrainConfig(steps=1_000_000, global_batch=4),
)
STEPS = 10
"""Steps of a block: one row."""


def bare(
    built: program.Program, state: Any, tokens: jax.Array, steps: int = STEPS
) -> tuple[Any, float]:
    """CPU seconds of a block of the bare loop."""
    began, pending = time.process_time(), None
    for _ in range(steps):
        state, metrics = built.train_step(state, tokens)
        if pending is not None:
            jax.device_get(pending)
        pending = metrics
    jax.block_until_ready((state, jax.device_get(pending)))
    return state, time.process_time() - began


class Full:
    """The loop of `pretrain`, a block at a time."""

    def __init__(self, folder: pathlib.Path):
        self.ledger = Ledger(folder)
        self.watchdog = Watchdog(folder, 1800.0, 0, self.ledger)
        self.log = train._Log(MetricsWriter(folder, 0), EXPERIMENT, 512, 1e9, 1e12, self.ledger, ())
        self.bar = ProgressBar(EXPERIMENT.train.steps, 0, 1 << 30)
        self.step = 0

    def block(self, built: program.Program, state: Any, tokens: jax.Array) -> tuple[Any, float]:
        """CPU seconds of a block."""
        began = time.process_time()
        for batch in self.ledger.feeding([tokens] * STEPS):
            state, metrics = built.train_step(state, batch)
            self.ledger.dispatched(metrics["loss"])
            self.step += 1
            self.log.push(self.step, metrics, self.bar)
        self.log.drain(self.bar)
        jax.block_until_ready(state)
        return state, time.process_time() - began


def alone(full: Full, built: program.Program, state: Any, tokens: jax.Array) -> float:
    """Seconds a step that this thread computes in the full loop's own code, the device idle."""
    _, metrics = built.train_step(jax.tree.map(lambda x: x.copy(), state), tokens)
    jax.block_until_ready(metrics)
    began, count = time.thread_time(), 500
    for _ in full.ledger.feeding([tokens] * count):
        full.ledger.dispatched(metrics["loss"])
        full.step += 1
        full.log.push(full.step, metrics, full.bar)
    with_all = time.thread_time() - began
    began = time.thread_time()
    for _ in range(count):
        jax.device_get(metrics)
    return (with_all - (time.thread_time() - began)) / count


def measure(blocks: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """All medians, in CPU seconds where nothing else is said."""
    runtime.configure()
    built = program.build(EXPERIMENT, jax.devices()[:1])
    state = built.init(np.uint32(0))
    rng = np.random.default_rng(0)
    shape = (EXPERIMENT.train.global_batch, EXPERIMENT.data.sequence_length)
    tokens = jax.device_put(rng.integers(6, 4000, shape, np.int32), built.batch_sharding)
    plain: list[float] = []
    whole: list[float] = []
    saving: list[float] = []
    blocking: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        full = Full(pathlib.Path(folder))
        saver = Checkpoints(pathlib.Path(folder), EXPERIMENT.checkpoint)
        state, _ = bare(built, state, tokens)
        state, _ = full.block(built, state, tokens)
        saver.save(state, EXPERIMENT, {})
        for number in range(blocks):
            for kind in np.random.default_rng(number).permutation(2):
                if kind:
                    state, seconds = bare(built, state, tokens)
                    plain.append(seconds)
                else:
                    state, seconds = full.block(built, state, tokens)
                    whole.append(seconds)
            if number % 5 == 4:
                began, clock = time.process_time(), time.perf_counter()
                saver.save(state, EXPERIMENT, {})
                blocking.append(time.perf_counter() - clock)
                state, _ = bare(built, state, tokens)
                saver.wait()
                saving.append(time.process_time() - began)
            progress(f"{number + 1}/{blocks} blocks")
        own = alone(full, built, state, tokens)
        saver.close()
        full.watchdog.stop()
    size = sum(x.nbytes for x in jax.tree.leaves(state))
    step = statistics.median(plain) / STEPS
    save = statistics.median(saving) - statistics.median(plain)
    every = EXPERIMENT.checkpoint.every
    return {
        "state_bytes": size,
        "step_seconds": step,
        "loop_ratio": statistics.median(
            a / b for a, b in zip(whole, plain, strict=True)
        ) - 1,
        "loop_seconds_of_thread": own,
        "loop_share": own / step,
        "save_blocking_seconds": statistics.median(blocking),
        "save_seconds": save,
        "save_share": save / every / step,
        "checkpoint_every": every,
        "blocks": blocks,
    }  # fmt: skip


def markdown(found: dict[str, Any]) -> str:
    """The numbers as a table."""
    return "\n".join(
        [
            "# What survival costs",
            "",
            f"`python benchmarks/overhead.py`, CPU, a state of {found['state_bytes'] / 1e6:.0f} MB,"
            f" steps of {found['step_seconds'] * 1e3:.0f} ms of CPU time, blocks of {STEPS} steps.",
            "",
            "| | CPU seconds | share of step time |",
            "|---|---:|---:|",
            "| ledger, watchdog, metrics, TensorBoard: this thread's time a step "
            f"| {found['loop_seconds_of_thread'] * 1e6:.0f} µs | {found['loop_share']:.2%} |",
            "| the same as the median ratio of neighbouring blocks, minus 1 "
            f"| | {found['loop_ratio']:+.2%} |",
            f"| a save with checksums, all threads | {found['save_seconds']:.2f} s "
            f"| {found['save_share']:.2%} (every {found['checkpoint_every']:,} steps) |",
            "| wall-clock time for which a save blocks "
            f"| {found['save_blocking_seconds']:.2f} s | |",
            "",
        ]
    )  # fmt: skip


def main() -> int:
    """Measures and writes the table; 1 where more than 1 % goes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=30, help="of each kind")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "results" / "overhead")
    options = parser.parse_args()
    found = measure(options.blocks, lambda text: print(f"\r{text}", end="", file=sys.stderr))
    print(file=sys.stderr)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(markdown(found))
    print(markdown(found))
    return int(found["loop_share"] + found["save_share"] > 0.01)


if __name__ == "__main__":
    sys.exit(main())
