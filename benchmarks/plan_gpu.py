"""Plans against real steps on the devices of this machine: memory and time, predicted and measured.

    python benchmarks/plan_gpu.py [--out plan_gpu.json] [--small]

On a GPU: models of 50M to 500M parameters in several shapes, under ten minutes in all. To expect:
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

from nt_jax import environment

environment.quiet()

from nt_jax import registry  # noqa: E402
from nt_jax.config import Experiment  # noqa: E402
from nt_jax.files import write_atomically  # noqa: E402
from nt_jax.overrides import apply_overrides  # noqa: E402
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
SECONDS = 540
"""After which no further plan is started."""


def main() -> None:
    """Prints a row a plan and writes all of them after each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("plan_gpu.json"))
    parser.add_argument("--small", action="store_true", help="a tiny model, for CPUs")
    options = parser.parse_args()
    # This process only plans: the one that measures gets the device, all of it.
    outside = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    os.environ["JAX_PLATFORMS"] = "cpu"
    start, rows = time.monotonic(), []
    print("experiment batch accumulate remat | peak GiB predicted measured | step s ... ")
    for name, batch, accumulate, remat in SMALL if options.small else LARGE:
        if time.monotonic() - start > SECONDS:
            print("no time left", file=sys.stderr)
            break
        shaped = shape(registry.find_experiment(name), batch, accumulate, remat)
        plan = plan_here(shaped, outside).to_dict()
        rows.append({"batch": batch, **plan})
        write_atomically(options.out, json.dumps(rows, indent=1) + "\n")
        print(line(rows[-1]), flush=True)


def shape(experiment: Experiment, batch: int, accumulate: int, remat: str) -> Experiment:
    """The experiment on one device with a batch that it holds."""
    small = dataclasses.replace(experiment.train, global_batch=batch)
    flags = ["--mesh.data", "-1", "--mesh.fsdp", "1", "--train.accumulate", str(accumulate)]
    experiment = dataclasses.replace(experiment, train=small)
    return apply_overrides(experiment, [*flags, "--model.remat", remat])


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
