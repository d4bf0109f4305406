"""`nt-jax launch slurm`: a batch job for each run."""

import argparse

from nt_jax.commands import launching


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options; the overrides of the config are whatever is left."""
    launching.arguments(parser)
    add = parser.add_argument
    add("--nodes", type=launching.positive, default=1, metavar="N", help="of a job (default: 1)")
    add(
        "--gpus-per-node", type=launching.from_zero, default=0, metavar="G",
        help="GPUs of each node (default: 0)",
    )  # fmt: skip
    add(
        "--tasks-per-node", type=launching.positive, default=None, metavar="T",
        help="processes of each node (default: one a GPU, as JAX expects under Slurm, else 1)",
    )  # fmt: skip
    add("--cpus-per-task", type=launching.positive, default=None, metavar="C", help="cores of each")
    add("--time", default=None, metavar="HH:MM:SS", help="limit of a job; it goes on in another")
    add("--partition", default=None, help="partition (default: the cluster's)")
    add("--account", default=None, help="account that is charged (default: the user's)")
    add(
        "--notice", type=launching.positive, default=120, metavar="SECONDS",
        help="before the limit, when it is told to save (default: 120)",
    )  # fmt: skip
    add(
        "--sbatch", action="append", default=[], metavar="OPTION",
        help="a further #SBATCH line, such as --sbatch=--qos=long; may be repeated",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Submits them; prints `JOB WORKDIR` for each on standard output."""
    from nt_jax.launch import jobs, slurm
    from nt_jax.launch.shell import DryShell, Shell, say

    # A job may start in another folder than this one.
    data = None if options.data is None else launching.absolute(options.data)
    resources = slurm.Resources(
        nodes=options.nodes,
        gpus_per_node=options.gpus_per_node,
        tasks_per_node=options.tasks_per_node,
        cpus_per_task=options.cpus_per_task,
        time=options.time,
        partition=options.partition,
        account=options.account,
        notice=options.notice,
        more=tuple(options.sbatch),
    )
    shell = DryShell() if options.dry_run else Shell()
    workdir = options.workdir.absolute()
    for run in launching.runs(options, workdir, data, launching.absolute):
        if run.is_done():
            say(f"{run.name}: done before")
            continue
        job = slurm.submit(shell, run, resources, options.max_restarts)
        if not options.dry_run:
            print(f"{job} {run.workdir}", flush=True)
    return jobs.FINISHED
