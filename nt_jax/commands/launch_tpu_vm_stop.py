"""`nt-jax launch tpu-vm-stop`: ends the run of a slice, saved, and gives the slice back."""

import argparse

from nt_jax.commands import launching


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    launching.place(parser, "name")
    parser.add_argument("--delete", action="store_true", help="give the slice back as well")


def run(options: argparse.Namespace) -> int:
    """Sends SIGTERM to the run, waits until it has saved; then deletes the slice if asked to."""
    from nt_jax.launch import jobs, tpu_remote, tpu_vm
    from nt_jax.launch.shell import Shell, say

    place = tpu_vm.Place(options.name, options.zone, options.project)
    tpu = tpu_vm.Slice(Shell(), place, poll=0.0)
    try:
        state, _ = tpu.state()
        if state == "ACTIVE" and tpu.on_all(tpu_remote.STOP, print):
            raise tpu_vm.LaunchError(f"{options.name}: not every worker could be reached")
        if options.delete and state is not None:
            tpu.delete()
    except tpu_vm.LaunchError as error:
        say(f"nt-jax: {error}")
        return jobs.FAILED
    deleted = ", deleted" if options.delete and state is not None else ""
    print(f"{options.name}: {state or 'there is none'}{deleted}")
    return jobs.FINISHED
