"""Plans against real steps on the devices of this machine: memory and time, predicted and measured.

    python benchmarks/plan_gpu.py [--out plan_gpu.json] [--seconds 540] [--small]

On a GPU: models of 50M to 500M parameters in several shapes, under ten minutes in all (after
`--seconds` no further plan is started). To expect:
peak memory within 10 %, step time within 30 %. `--small` does the same with a tiny model, for a
machine that has only a CPU. Each plan runs in a process of its own, so that peaks are its own.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nt_jax import environment  # noqa: E402

environment.quiet()

from nt_jax import registry  # noqa: E402
from nt_jax.config import Experiment, MeshConfig  # noqa: E402
from nt_jax.files import write_atomically  # noqa: E402
from nt_jax.plan.here import plan_here  # noqa: E402

LARGE = (
    ("nt_v2_50m_multispecies", 32, 1, "dots"),
    ("nt_v2_50m_multispecies", 64, 2, "full"),
    ("nt_v2_250m_multispecies", 16, 1, "dots"),
    ("nt_v2_500m_multispecies", 16, 1, "dots"),
    ("nt_v2_500m_multispecies", 32, 2, "full"),
    ("nt_v1_500m_human_ref", 32, 1, "dots"),
    ("nt_v1_500m_human_ref", 64, 2, "full"),
)
SMALL = (("nt_v2_nano", 4, 1, "none"), ("nt_v2_nano", 8, 2, "full"))
"""(experiment, global batch, micro-batches, remat)."""


def main() -> None:
    """Prints a row a plan and writes all of them after each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("plan_gpu.json"))
    parser.add_argument("--seconds", type=float, default=540.0, help="no plan starts after them")
    parser.add_argument("--small", action="store_true", help="a tiny model, for CPUs")
    options = parser.parse_args()
    # This process only plans: the one that measures gets the device, all of it.
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    outside = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONPATH": paths}
    os.environ["JAX_PLATFORMS"] = "cpu"
    start, rows = time.monotonic(), []
    print("experiment batch accumulate remat | peak GiB predicted measured | step s ... ")
    for name, batch, accumulate, remat in SMALL if options.small else LARGE:
        if time.monotonic() - start > options.seconds:
            print("no time left", file=sys.stderr)
            break
        # By path, for where this checkout is run without being installed.
        experiment = registry.find_experiment(str(ROOT / "experiments" / f"{name}.py"))
        shaped = shape(experiment, batch, accumulate, remat)
        plan = plan_here(shaped, outside).to_dict()
        rows.append({"batch": batch, **plan})
        write_atomically(options.out, json.dumps(rows, indent=1) + "\n")
        print(line(rows[-1]), flush=True)


def shape(experiment: Experiment, batch: int, accumulate: int, remat: str) -> Experiment:
    """The experiment on one device with a batch that it holds."""
    return dataclasses.replace(
        experiment,
        train=dataclasses.replace(experiment.train, global_batch=batch, accumulate=accumulate),
        mesh=MeshConfig(data=-1, fsdp=1),
        model=dataclasses.replace(experiment.model, remat=remat),
    )


def line(row: dict) -> str:
    """What a reader wants to see."""
    head = f"{row['experiment']} {row['batch']} {row['accumulate']} {row['remat']}"
    found = row["measured"]
    if "step_seconds" not in found:
        return f"{head} | does not fit"
    return (
        f"{head} | {found['predicted_peak_bytes'] / 2**30:.2f} {found['peak_bytes'] / 2**30:.2f} "
        f"({found['peak_error']:+.0%}) | {found['predicted_step_seconds']:.3g} "
        f"{found['step_seconds']:.3g} ({found['step_error']:+.0%})"
    )


if __name__ == "__main__":
    main()
