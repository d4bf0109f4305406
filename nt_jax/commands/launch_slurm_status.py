"""`nt-jax launch slurm-status`: the jobs of workdirs."""

import argparse
import pathlib


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("workdir", nargs="+", type=pathlib.Path, metavar="WORKDIR", help="runs")


def run(options: argparse.Namespace) -> None:
    """Prints a table."""
    from nt_jax.launch import slurm
    from nt_jax.launch.shell import Shell

    print(slurm.status(Shell(), [workdir.absolute() for workdir in options.workdir]))
