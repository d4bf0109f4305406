"""Options that every `nt-jax launch` of a run takes."""

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

from nt_jax.commands import pretrain
from nt_jax.launch.jobs import Run, plan_runs


def arguments(parser: argparse.ArgumentParser) -> None:
    """What is run, where it lies, how often it is tried."""
    parser.add_argument(
        "experiment", nargs="+", metavar="EXPERIMENT", help="registered names, .py or .json files"
    )
    parser.add_argument(
        "--workdir", type=pathlib.Path, required=True,
        help="folder of the run; of several runs, the folder of their workdirs",
    )  # fmt: skip
    parser.add_argument("--data", default=None, help="dataset folder (short for --data.path)")
    parser.add_argument("--init-from", default=None, metavar="DIR[@STEP]", help="weights to start")
    parser.add_argument(
        "--sweep", action="append", default=[], metavar="GROUP.FIELD=A,B,...",
        help="a run for each value (optim.peak-lr=1e-4,3e-4); several: their cross product",
    )  # fmt: skip
    parser.add_argument(
        "--max-restarts", type=from_zero, default=3, metavar="N",
        help="restarts in a row without a new checkpoint before it is given up (default: 3)",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="print the commands and files; run nothing"
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = pretrain.override_help()


def from_zero(text: str) -> int:
    """A number from 0 on."""
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def positive(text: str) -> int:
    """A number from 1 on."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def runs(
    options: argparse.Namespace,
    workdir: pathlib.Path,
    data: str | None,
    file_there: Callable[[str], str] = str,
) -> list[Run]:
    """The runs that the options name, checked; raises InputError. See `plan_runs`."""
    more = ["--init-from", options.init_from] if options.init_from is not None else []
    return plan_runs(
        options.experiment, workdir, data, options.rest, options.sweep, more, file_there
    )


def absolute(path: str) -> str:
    """The path as it reads from any folder."""
    return str(pathlib.Path(path).absolute())


def place(parser: argparse.ArgumentParser, name: str, **keywords: Any) -> None:
    """Which Cloud TPU slice, as option or argument `name`."""
    parser.add_argument(name, metavar="NAME", help="of the slice", **keywords)
    parser.add_argument("--zone", required=True, help="zone, such as us-west4-a")
    parser.add_argument("--project", default=None, help="project (default: gcloud's own)")
