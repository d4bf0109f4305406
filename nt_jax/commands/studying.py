"""Options that every `nt-jax study` command takes."""

import argparse
import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nt_jax.studies.grid import Study


def study(parser: argparse.ArgumentParser) -> None:
    """STUDY."""
    parser.add_argument("study", metavar="STUDY", help="registered name or .py file with study()")


def only(parser: argparse.ArgumentParser) -> None:
    """`--only NAME ...`."""
    parser.add_argument(
        "--only", action="append", nargs="+", default=[], metavar="RUN", help="these runs alone"
    )


def out(parser: argparse.ArgumentParser) -> None:
    """`--out DIR`."""
    parser.add_argument(
        "--out", type=pathlib.Path, required=True, metavar="DIR", help="folder of the study"
    )


def checked(options: argparse.Namespace) -> "Study":
    """The study that the options name, which is the one that its folder holds."""
    from nt_jax.studies import declared
    from nt_jax.studies.find import find_study

    found = find_study(options.study)
    declared.check(found, options.out)
    return found
