"""`nt-jax launch local`: runs on this machine, in one or several processes."""

import argparse

from nt_jax.commands import launching


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options; the overrides of the config are whatever is left."""
    launching.arguments(parser)
    parser.add_argument(
        "--processes", type=launching.positive, default=1, metavar="N",
        help="processes of a run, as many hosts would have (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--devices-per-process", type=launching.positive, default=None, metavar="M",
        help="fake devices on CPU, GPUs elsewhere (default: 1, and all GPUs in equal parts)",
    )  # fmt: skip
    parser.add_argument(
        "--parallel", type=launching.positive, default=1, metavar="N",
        help="runs of a sweep at a time (default: 1)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Runs them; a sweep ends with a table on standard output."""
    from nt_jax.launch import jobs, local

    runs = launching.runs(options, options.workdir, options.data)
    layout = local.Layout(options.processes, options.devices_per_process)
    if options.dry_run:
        print(local.script(runs, layout))
        return jobs.FINISHED
    outcomes = local.launch(runs, layout, options.parallel, options.max_restarts)
    if len(runs) > 1:
        print(jobs.table(outcomes))
    return jobs.worst(outcomes)
