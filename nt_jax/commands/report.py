"""`nt-jax report`: a run as one self-contained page."""

import argparse
import pathlib


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("workdir", type=pathlib.Path, metavar="WORKDIR", help="folder of the run")


def run(options: argparse.Namespace) -> None:
    """Writes the page; its path goes to standard output."""
    from nt_jax.report.page import write_report

    print(write_report(options.workdir))
