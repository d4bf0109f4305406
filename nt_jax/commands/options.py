"""Options that several commands take."""

import argparse
import pathlib
import signal
import sys
from collections.abc import Sequence

from nt_jax.errors import InputError

PREEMPTED = 75
"""Exit code of a command that a signal stopped and that goes on when it is run again."""


def end_on_sigterm() -> None:
    """For commands whose finished work is on disk at any moment: there is nothing to save."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(PREEMPTED))


def flat(groups: Sequence[Sequence[str]]) -> list[str]:
    """What `--option A B --option C` gives (append of nargs="+"): A, B, C."""
    return [name for group in groups for name in group]


def checkpoint(parser: argparse.ArgumentParser) -> None:
    """`--checkpoint DIR[@STEP]`."""
    parser.add_argument("--checkpoint", required=True, metavar="DIR[@STEP]", help="workdir")


def tasks(parser: argparse.ArgumentParser) -> None:
    """`--task NAME|PATH ...` and where names are looked up."""
    parser.add_argument(
        "--task", required=True, action="append", nargs="+", metavar="NAME|PATH",
        help="registered name (`nt-jax tasks`), table, FASTA, task.json or folder of them",
    )  # fmt: skip
    data_dir(parser)


def data_dir(parser: argparse.ArgumentParser) -> None:
    """`--data-dir DIR`."""
    parser.add_argument(
        "--data-dir", type=pathlib.Path, action="append", default=[], metavar="DIR",
        help="look for named tasks here, before the folder that NT_JAX_DATA_MIRROR names",
    )  # fmt: skip


def pooling(parser: argparse.ArgumentParser) -> None:
    """`--pooling`."""
    parser.add_argument(
        "--pooling", choices=["mean", "cls", "max"], default="mean",
        help="of token embeddings; mean and max leave <cls> and pads out",
    )  # fmt: skip


def as_json(parser: argparse.ArgumentParser, what: str = "result") -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help=f"machine-readable {what}")


def layers(text: str) -> list[int] | None:
    """`1,5,12`; None for an empty text."""
    try:
        return [int(layer) for layer in text.split(",") if layer] or None
    except ValueError:
        raise InputError(f"--layers {text!r}: comma-separated layer numbers") from None
