"""`nt-jax launch tpu-vm`: runs on a Cloud TPU slice."""

import argparse
import pathlib
import signal

from nt_jax.commands import launching
from nt_jax.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options; the overrides of the config are whatever is left."""
    launching.arguments(parser)
    launching.place(parser, "--name", required=True)
    add = parser.add_argument
    add(
        "--topology", required=True, metavar="SLICE",
        help="v5e-16, v6e-64 (chips), v4-64, v5p-64 (TensorCores)",
    )  # fmt: skip
    add("--spot", action="store_true", help="spot capacity: cheaper, may be taken at any time")
    add(
        "--wait", type=launching.positive, default=120, metavar="MINUTES",
        help="for the slice to be there; the request lapses then (default: 120)",
    )  # fmt: skip
    add(
        "--setup", type=pathlib.Path, default=None, metavar="FILE",
        help="shell text that every worker runs before the installation, such as mounts",
    )  # fmt: skip
    add("--runtime-version", default=None, help="image (default: Google's for the generation)")
    add(
        "--create", action="append", default=[], metavar="FLAG",
        help="a further flag of `queued-resources create`, such as --create=--network=mine",
    )  # fmt: skip
    add(
        "--poll", type=float, default=20.0, metavar="SECONDS",
        help="between two looks at the slice (default: 20)",
    )  # fmt: skip
    add("--delete", action="store_true", help="give the slice back at the end, however it ends")


def run(options: argparse.Namespace) -> int:
    """Runs them; a sweep ends with a table on standard output."""
    from nt_jax.launch import jobs, tpu_types, tpu_vm
    from nt_jax.launch.revision import this_revision
    from nt_jax.launch.shell import DryShell, Shell, say

    accelerator, runtime = tpu_types.accelerator(options.topology)
    for name, path in (("--workdir", str(options.workdir)), ("--data", options.data)):
        if path is not None and not path.startswith("/"):
            raise InputError(
                f"{name} {path}: a path as all workers see it is needed, such as /mnt/runs/one on "
                "a mounted bucket or NFS (--setup mounts it)"
            )
    setup = ""
    if options.setup is not None:
        if not options.setup.is_file():
            raise InputError(f"--setup {options.setup}: no such file")
        setup = options.setup.read_text()
    revision = this_revision()
    runs = launching.runs(options, options.workdir, options.data, revision.path_in)
    place = tpu_vm.Place(options.name, options.zone, options.project)
    request = tpu_vm.Request(
        accelerator,
        options.runtime_version or runtime,
        ("--spot",) if options.spot else (),
        tuple(options.create),
        options.wait,
    )
    shell = DryShell() if options.dry_run else Shell()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        outcomes = tpu_vm.launch(
            shell, place, request, runs, revision, setup, options.max_restarts, options.poll
        )
    except tpu_vm.LaunchError as error:
        say(f"nt-jax: {error}")
        return jobs.FAILED
    except KeyboardInterrupt:
        say(
            f"nt-jax: left {options.name} as it is: what runs there goes on. The same command joins"
        )
        say(f"nt-jax: it again; nt-jax launch tpu-vm-stop {options.name} ends it, saved")
        return 130
    if options.delete:
        tpu_vm.Slice(shell, place, options.poll).delete()
    if len(runs) > 1 and not options.dry_run:
        print(jobs.table(outcomes))
    return jobs.worst(outcomes)
