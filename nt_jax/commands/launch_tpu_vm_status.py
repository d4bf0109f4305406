"""`nt-jax launch tpu-vm-status`: a slice and what runs on it."""

import argparse

from nt_jax.commands import launching


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    launching.place(parser, "name")


def run(options: argparse.Namespace) -> int:
    """Prints the state of the slice, and a line for each worker."""
    from nt_jax.launch import jobs, tpu_remote, tpu_vm
    from nt_jax.launch.shell import Shell, say

    place = tpu_vm.Place(options.name, options.zone, options.project)
    tpu = tpu_vm.Slice(Shell(), place, poll=0.0)
    try:
        state, why = tpu.state()
        print(f"{options.name}: {state or 'there is none'} {why}".strip())
        if state == "ACTIVE" and tpu.on_all(tpu_remote.STATUS, print):
            return jobs.FAILED
    except tpu_vm.LaunchError as error:
        say(f"nt-jax: {error}")
        return jobs.FAILED
    return jobs.FINISHED
