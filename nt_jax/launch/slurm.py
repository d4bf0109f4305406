"""`launch slurm`: one batch job a run, which requeues itself until the run has finished.

The script asks for SIGTERM some time before its limit, so that `pretrain` saves and exits with 75;
then it calls `scontrol requeue`. A failure starts the step again within the allocation. Job names
are made of the workdir and the jobs depend on `singleton`: of two jobs of one workdir the second
waits until the first has ended. JAX reads who is who from Slurm's own variables.
"""

import dataclasses
import hashlib
import pathlib
import shlex
import sys
from collections.abc import Sequence

from nt_jax.errors import InputError
from nt_jax.launch.jobs import Run, lined_up, newest_step
from nt_jax.launch.shell import Shell

_STRAGGLER_SECONDS = 120
_QUEUE = ("squeue", "--me", "--noheader", "--format=%i|%T|%M|%R")
_HISTORY = ("sacct", "--noheader", "--parsable2", "--allocations", "--starttime=now-90days",
            "--format=JobID,State,Elapsed,ExitCode")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Resources:
    """What a job asks Slurm for; None is left to the cluster's defaults."""

    nodes: int = 1
    """Nodes of a job."""
    gpus_per_node: int = 0
    """GPUs of each node; JAX takes one process a GPU under Slurm."""
    tasks_per_node: int | None = None
    """Processes of each node; None is one a GPU."""
    cpus_per_task: int | None = None
    """Cores of each process."""
    time: str | None = None
    """Limit as Slurm writes it (24:00:00); the job goes on in a further one."""
    partition: str | None = None
    """Partition."""
    account: str | None = None
    """Account that is charged."""
    notice: int = 120
    """Seconds before the limit at which `pretrain` is told to save."""
    more: tuple[str, ...] = ()
    """Further sbatch options, such as `--qos=long`."""


def files(run: Run) -> dict[str, pathlib.Path]:
    """Script and log: beside the workdir, which belongs to the run."""
    beside, name = run.workdir.parent, run.workdir.name
    return {"script": beside / f"{name}.slurm.sh", "log": beside / f"{name}.slurm-%j.log"}


def job_name(workdir: pathlib.Path) -> str:
    """The same for the same workdir, and for no other."""
    digest = hashlib.sha256(str(workdir).encode()).hexdigest()[:8]
    return f"nt-jax-{workdir.name}-{digest}"


def script(run: Run, resources: Resources, max_restarts: int) -> str:
    """The batch script of a run, whose workdir is an absolute path."""
    tasks = resources.tasks_per_node or max(resources.gpus_per_node, 1)
    options = {
        "job-name": job_name(run.workdir),
        "nodes": resources.nodes,
        "ntasks-per-node": tasks,
        "gpus-per-node": resources.gpus_per_node or None,
        "cpus-per-task": resources.cpus_per_task,
        "time": resources.time,
        "partition": resources.partition,
        "account": resources.account,
        "output": files(run)["log"],
        "open-mode": "append",
        "dependency": "singleton",
        "signal": f"TERM@{resources.notice}",
    }
    lines = [f"#SBATCH --{key}={value}" for key, value in options.items() if value is not None]
    lines += ["#SBATCH --requeue", *(f"#SBATCH {option}" for option in resources.more)]
    command = shlex.join([sys.executable, "-m", "nt_jax.cli", *run.arguments])
    return _SCRIPT.format(
        options="\n".join(lines),
        checkpoints=shlex.quote(str(run.workdir / "checkpoints")),
        limit=max_restarts,
        straggler=_STRAGGLER_SECONDS,
        command=command,
    )


# srun ends with the highest exit code of its tasks. `--wait` bounds how long the rest may go on
# once one task has ended, so that a dead process does not hold the allocation; ending them at once
# (--kill-on-bad-exit) would cut short those that still save. bash runs a trap when srun has ended:
# without it, a SIGTERM that reaches the batch shell too would end it before the requeue. scancel
# makes the state COMPLETING, and then the job shall not come back.
_SCRIPT = """\
#!/bin/bash
{options}
trap : TERM
newest() {{ ls {checkpoints} 2>/dev/null | grep -xE '[0-9]+' | sort -n | tail -n 1; }}
say() {{ echo "nt-jax: $(date +%FT%T) job $SLURM_JOB_ID: $*"; }}
restarts=0
while true; do
  before=$(newest)
  srun --kill-on-bad-exit=0 --wait={straggler} \\
    {command}
  code=$?
  case $code in
    0) say "done"; exit 0 ;;
    2) say "bad input: not tried again"; exit 2 ;;
    75)
      case "$(squeue --noheader --format=%T --jobs="$SLURM_JOB_ID")" in
        CANCELLED | COMPLETING) say "saved; cancelled"; exit 75 ;;
      esac
      say "saved at step $(newest); requeued"
      scontrol requeue "$SLURM_JOB_ID" && exit 75
      say "cannot be requeued; submit it again to go on"
      exit 75 ;;
  esac
  if [ "$(newest)" != "$before" ]; then restarts=0; fi
  if [ "$restarts" -ge {limit} ]; then
    say "exit code $code; gave up after $restarts restarts without a new checkpoint"
    exit "$code"
  fi
  restarts=$((restarts + 1))
  say "exit code $code; starts again, newest checkpoint $(newest)"
done
"""


def submit(shell: Shell, run: Run, resources: Resources, max_restarts: int) -> str:
    """Writes the script, hands it to sbatch; returns the job's id. Raises InputError if refused."""
    paths = files(run)
    shell.make_folder(run.workdir.parent)
    shell.write(paths["script"], script(run, resources, max_restarts))
    result = shell.run(["sbatch", "--parsable", str(paths["script"])], dry="0")
    if result.code:
        raise InputError(f"{run.name}: sbatch refused {paths['script']}: {result.reason()}")
    return result.output.strip().split(";")[0]


def status(shell: Shell, workdirs: Sequence[pathlib.Path]) -> str:
    """A table of the newest job of each workdir: from the queue, else from the accounting."""
    rows: list[tuple[str, ...]] = [("workdir", "job", "state", "time", "nodes or reason", "step")]
    for workdir in workdirs:
        name = f"--name={job_name(workdir)}"
        found = shell.run([*_QUEUE, name])
        if found.code or not found.output.strip():
            found = shell.run([*_HISTORY, name])
        if found.code:
            raise InputError(f"{workdir}: {found.reason()}")
        if not found.output.strip():
            raise InputError(
                f"{workdir}: neither squeue nor sacct (of 90 days) knows a job {job_name(workdir)}"
            )
        fields = found.output.strip().splitlines()[-1].split("|")
        step = newest_step(workdir)
        rows.append((str(workdir), *fields[:4], "-" if step is None else str(step)))
    return lined_up(rows, right=(3, 5))
