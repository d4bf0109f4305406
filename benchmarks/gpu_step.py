"""What XLA makes of the train step for one H200, on a machine that has none.

    python benchmarks/gpu_step.py [--out benchmarks/results] [CASE ...]

Needs a Python with this package and jax[cuda12]; no GPU and no driver. Compiles the real train
step of the published models ahead of time, with layers in a loop and unrolled, by rematerialisation
and by attention, and reads the programs: cuDNN's kernels, score matrices, logits, memory, and by
the roofline of docs/pods.md the time, in products and outside of them. Nothing is run. A GPU would
choose between kernels of a product by trying them; here all products are cuBLAS calls. Writes
gpu_step.json and gpu_step.md after each program, about a minute each.
To expect: unrolled layers need the least time outside of products, cuDNN's kernel no matrix of
tokens x tokens.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nt_jax import environment  # noqa: E402

environment.quiet()
# The plugin would otherwise ask the driver, which is not there.
os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import programs  # noqa: E402
from jax.experimental import topologies  # noqa: E402

from nt_jax import program, registry, throughput  # noqa: E402
from nt_jax.config import Experiment, MeshConfig  # noqa: E402
from nt_jax.files import write_atomically  # noqa: E402
from nt_jax.plan import hlo, roofline, topology, work  # noqa: E402
from nt_jax.plan.hlo import Instruction  # noqa: E402

GIB = 2**30
H200 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H200"
runtime_version { major: 12 minor: 8 }
dnn_version_info { major: 9 minor: 8 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  l2_cache_size: 52428800
  memory_bandwidth: 4800000000000
  device_memory_size: 150000000000
}
"""
"""From NVIDIA's data sheet and the CUDA programming guide's table of compute capability 9.0."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One program of a model."""

    remat: str | None = None
    """None: that of the experiment."""
    looped: bool = False
    attention: str = "fastest"


VARIANTS = (Variant(looped=True), Variant(), Variant("none"), Variant(attention="dense"))
BATCHES = {"nt_v1_500m_human_ref": 32, "nt_v2_500m_multispecies": 16, "nt_v1_2b5_multispecies": 8}
"""Sequences a step of each case."""


def main() -> None:
    """Compiles, reads, writes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benchmarks/results"))
    parser.add_argument("case", nargs="*", help="of: " + ", ".join(BATCHES))
    options = parser.parse_args()
    if wrong := [name for name in options.case if name not in BATCHES]:
        parser.error(f"no case {wrong[0]!r}; known: {', '.join(BATCHES)}")
    options.out.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_threefry_partitionable", True)
    try:
        described = topologies.get_topology_desc(
            "", platform="cuda", target_config=H200, topology="1x1x1"
        )
    except NotImplementedError:
        sys.exit(
            f"{sys.executable} has no CUDA plugin: pip install 'jax[cuda12]=={jax.__version__}'"
        )
    rows: list[dict[str, Any]] = []
    for name in options.case or BATCHES:
        for variant in VARIANTS:
            rows.append(row(name, variant, list(described.devices)))
            write_atomically(options.out / "gpu_step.json", json.dumps(rows, indent=1) + "\n")
            write_atomically(options.out / "gpu_step.md", page(rows))
            print(page(rows).splitlines()[-3], file=sys.stderr, flush=True)


def row(name: str, variant: Variant, devices: list[Any]) -> dict[str, Any]:
    """What one program holds."""
    experiment = shaped(name, variant)
    built = program.build(experiment, devices, unroll=1 if variant.looped else None)
    start = time.process_time()
    tokens = program.abstract_tokens(built, experiment)
    compiled = built.train_step.lower(built.abstract, tokens).compile(
        compiler_options={"xla_gpu_enable_triton_gemm": False}
    )
    seconds = time.process_time() - start
    memory = compiled.memory_analysis()
    peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    peak += memory.output_size_in_bytes - memory.alias_size_in_bytes
    module = hlo.parse(compiled.as_text())
    where = topology.parse("h200-1")
    costs = work.work(module)
    step = roofline.times(where, experiment.model.compute_dtype, costs, [], dict(built.mesh.shape))
    flops = throughput.train_flops_per_step(experiment)
    products = [cost for cost in costs if cost.flops]
    inside = roofline.times(where, experiment.model.compute_dtype, products, [], {}).step
    return {
        "case": name,
        "batch": BATCHES[name],
        "remat": experiment.model.remat,
        "looped": variant.looped,
        "attention": variant.attention,
        **programs.arrays(module, experiment, kernel),
        "tokens": BATCHES[name] * experiment.data.sequence_length,
        "peak_bytes": peak,
        "step_seconds": step.step,
        "product_seconds": inside,
        "mfu": flops / step.step / where.chip.flops,
        "compile_seconds": seconds,
        "jax": jax.__version__,
    }


def shaped(name: str, variant: Variant) -> Experiment:
    """The experiment on one device."""
    experiment = registry.find_experiment(str(ROOT / "experiments" / f"{name}.py"))
    model = dataclasses.replace(
        experiment.model,
        remat=variant.remat or experiment.model.remat,
        attention=variant.attention,
    )
    train = dataclasses.replace(experiment.train, global_batch=BATCHES[name], accumulate=1)
    mesh = MeshConfig(data=-1, fsdp=1)
    return dataclasses.replace(experiment, model=model, train=train, mesh=mesh)


def kernel(instruction: Instruction) -> str:
    """The pass of cuDNN's attention that this is."""
    if "__cudnn$fmha" not in instruction.attributes:
        return ""
    return "backward" if "Backward" in instruction.attributes else "forward"


def page(rows: list[dict[str, Any]]) -> str:
    """The table for the documentation."""
    chip = topology.parse("h200-1").chip
    lines = [
        "# The train step on one H200, as XLA compiles it",
        "",
        "Made by `benchmarks/gpu_step.py`, ahead of time on a machine without a GPU: nothing was "
        f"run. Memory is GiB, of {chip.memory / GIB:.0f}. Time is predicted: products at "
        f"{chip.flops_share:.0%} of {chip.flops / 1e12:.0f} TFLOP/s, all else at "
        f"{chip.bandwidth_share:.0%} of {chip.bandwidth / 1e12:.1f} TB/s; what is computed again "
        "counts in the time and not in the MFU, which is of the data sheet's peak. Compile: "
        "processor time on this machine, without XLA's search for kernels.",
        "",
        "| model, batch | layers | remat | attention | kernels, forward + backward "
        "| tokens x tokens | rows of logits | memory | predicted step | in products | outside "
        "| MFU | compile |",
        "|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in rows:
        kernels = one["kernels"]
        counted = f"{kernels.get('forward', 0)} + {kernels.get('backward', 0)}"
        outside = one["step_seconds"] - one["product_seconds"]
        lines.append(
            f"| {one['case']}, {one['batch']} | {'loop' if one['looped'] else 'unrolled'} "
            f"| {one['remat']} | {'dense' if one['attention'] == 'dense' else 'cuDNN'} | {counted} "
            f"| {len(one['score_arrays'])} | {one['logit_rows']:,} of {one['tokens']:,} "
            f"| {one['peak_bytes'] / GIB:.1f} | {1e3 * one['step_seconds']:.0f} ms "
            f"| {1e3 * one['product_seconds']:.0f} ms | {1e3 * outside:.0f} ms "
            f"| {one['mfu']:.0%} | {one['compile_seconds']:.0f} s |"
        )
    lines += ["", f"jax {rows[-1]['jax']}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
