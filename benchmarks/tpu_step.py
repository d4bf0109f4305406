"""What libtpu makes of the shipped experiments, with the attention kernel and without.

    python benchmarks/tpu_step.py [--slice v5p-64] [--cache DIR] [--out benchmarks/results]

Compiles the real train step of each experiment twice for a slice that is not here and reads the
programs: attention kernels, score matrices, logits, memory, collectives beside those of theory.
Writes tpu_step.json and tpu_step.md after each experiment; programs are kept in the cache. Some
minutes of one core a program. To expect: with the kernel no array of tokens x tokens, and memory
that is lower by what the table says.
"""

import argparse
import json
import math
import pathlib
from typing import Any

from nt_jax import environment

environment.quiet()

import programs  # noqa: E402

from nt_jax import registry  # noqa: E402
from nt_jax.config import Experiment  # noqa: E402
from nt_jax.files import write_atomically  # noqa: E402
from nt_jax.overrides import apply_overrides  # noqa: E402
from nt_jax.plan import compiler, estimate, hlo, prediction, topology  # noqa: E402
from nt_jax.plan.hlo import Instruction  # noqa: E402

EXPERIMENTS = ("nt_v1_500m_human_ref", "nt_v1_2b5_multispecies", "nt_v2_500m_multispecies")
ATTENTION = ("dense", "fastest")
GIB = 2**30


def main() -> None:
    """Compiles, reads, writes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slice", default="v5p-64")
    parser.add_argument("--cache", type=pathlib.Path, default=compiler.CACHE)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benchmarks/results"))
    parser.add_argument("--experiment", action="append", help="instead of the usual three")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in options.experiment or EXPERIMENTS:
        for attention in ATTENTION:
            experiment = apply_overrides(
                registry.find_experiment(name), ["--model.attention", attention]
            )
            rows.append(row(experiment, attention, options.slice, options.cache))
        write_atomically(options.out / "tpu_step.json", json.dumps(rows, indent=1) + "\n")
        write_atomically(options.out / "tpu_step.md", page(rows, options.slice))
    print(page(rows, options.slice))


def row(experiment: Experiment, attention: str, name: str, cache: pathlib.Path) -> dict[str, Any]:
    """What one program holds."""
    where = topology.parse(name)
    plan = prediction.predict(experiment, where, cache)
    compiled = compiler.compile_step(experiment, where, cache)
    if not compiled.program:
        raise SystemExit(f"{experiment.name} with {attention} attention does not fit {name}")
    length = experiment.data.sequence_length
    windows = experiment.train.global_batch / math.prod(
        compiled.mesh[axis] for axis in ("slices", "data", "fsdp")
    )
    expected = estimate.collectives(experiment, compiled.mesh)
    return {
        "experiment": experiment.name,
        "attention": attention,
        "slice": name,
        "remat": experiment.model.remat,
        "windows_per_chip": windows,
        **programs.arrays(hlo.parse(compiled.program), experiment, kernel),
        "tokens_per_chip": windows * length,
        "peak_bytes": compiled.peak,
        "step_seconds": plan.step_seconds,
        "mfu": plan.mfu,
        "collectives": _exchanged(plan.collectives),
        "expected_collectives": _exchanged(expected),
    }


def kernel(instruction: Instruction) -> str:
    """The pass of the splash kernel that this is."""
    splash = instruction.name.startswith("splash")
    return instruction.name.partition("_segmented")[0] if splash else ""


def _exchanged(found: list[Any]) -> dict[str, float]:
    """Bytes that a chip sends in a step, by kind and axes."""
    total: dict[str, float] = {}
    for one in found:
        name = f"{one.kind} over {'+'.join(one.axes)}"
        total[name] = total.get(name, 0.0) + one.sent
    return {name: round(sent) for name, sent in total.items()}


def page(rows: list[dict[str, Any]], name: str) -> str:
    """The table for the documentation."""
    lines = [
        f"# The train step on {name}, as libtpu compiles it",
        "",
        "Made by `benchmarks/tpu_step.py`: shipped experiments, ahead of time, nothing run. Memory "
        "is GiB of one chip; time is predicted (docs/pods.md says how), with the kernel at the "
        "stated share of the peak for the rows that a head fills.",
        "",
        "| experiment | attention | kernels a step | arrays of tokens x tokens | rows of logits "
        "| memory | predicted step | collectives (sent by a chip) | of theory |",
        "|---|---|---|---:|---:|---:|---:|---|---|",
    ]
    for one in rows:
        kernels = ", ".join(f"{times} {kernel}" for kernel, times in one["kernels"].items())
        logits = f"{one['logit_rows']:,} of {one['tokens_per_chip']:,.0f}"
        lines.append(
            f"| {one['experiment']} | {one['attention']} | {kernels or 'none'} "
            f"| {len(one['score_arrays'])} | {logits} "
            f"| {one['peak_bytes'] / GIB:.1f} | {one['step_seconds']:.3g} s "
            f"| {_text(one['collectives'])} | {_text(one['expected_collectives'])} |"
        )
    return "\n".join(lines) + "\n"


def _text(exchanged: dict[str, float]) -> str:
    return ", ".join(f"{kind} {sent / 1e9:.2f} GB" for kind, sent in exchanged.items()) or "none"


if __name__ == "__main__":
    main()
