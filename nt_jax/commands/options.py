"""Options that several commands take."""

import argparse
from collections.abc import Sequence

from nt_jax.errors import InputError


def flat(groups: Sequence[Sequence[str]]) -> list[str]:
    """What `--option A B --option C` gives (append of nargs="+"): A, B, C."""
    return [name for group in groups for name in group]


def checkpoint(parser: argparse.ArgumentParser) -> None:
    """`--checkpoint DIR[@STEP]`."""
    parser.add_argument("--checkpoint", required=True, metavar="DIR[@STEP]", help="workdir")


def as_json(parser: argparse.ArgumentParser, what: str = "result") -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help=f"machine-readable {what}")


def layers(text: str) -> list[int] | None:
    """`1,5,12`; None for an empty text."""
    try:
        return [int(layer) for layer in text.split(",") if layer] or None
    except ValueError:
        raise InputError(f"--layers {text!r}: comma-separated layer numbers") from None
