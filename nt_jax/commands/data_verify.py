"""`nt-jax data verify`: what is wrong with a dataset."""

import argparse
import dataclasses
import json
import pathlib
from typing import TYPE_CHECKING

from nt_jax.commands import options as common

if TYPE_CHECKING:
    from data_pipelines.near import Labelled


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("dir", type=pathlib.Path, metavar="DIR", help="dataset folder")
    parser.add_argument(
        "--task", action="append", nargs="+", default=[], metavar="NAME|PATH",
        help="labelled sets to look up in the training windows (names: `nt-jax tasks`)",
    )  # fmt: skip
    common.data_dir(parser)
    parser.add_argument("--html", type=pathlib.Path, metavar="FILE", help="also a page with plots")
    common.as_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prints the findings; 1 when something is wrong."""
    from data_pipelines.datacard import read_datacard
    from data_pipelines.verify import verify
    from nt_jax.commands.bars import count_bar

    read_datacard(options.dir)
    sets = [own for name in common.flat(options.task) for own in _labelled(name, options.data_dir)]
    with count_bar("reading windows") as move:
        report = verify(options.dir, sets, move)
    if options.html:
        from nt_jax.report.verify_page import write_page

        write_page(report, options.html)
    if options.json:
        print(json.dumps(dataclasses.asdict(report), indent=2))
    else:
        from nt_jax.evaluation.table import aligned
        from nt_jax.report.verify_tables import tables

        print(f"{report.path}: {report.kind} sequences")
        for table in tables(report):
            print(f"\n{table.title}\n{aligned(table.header, table.rows)}")
            for line in table.lines:
                print(f"  {line}")
        print("\nproblems:" if report.problems else "\nno problem found")
        for problem in report.problems:
            print(f"  {problem}")
    return 1 if report.problems else 0


def _labelled(name: str, data_dirs: list[pathlib.Path]) -> "list[Labelled]":
    from data_pipelines.near import Labelled
    from nt_jax.evaluation.tasks.find import find_task

    task = find_task(name, data_dirs)
    splits = [("train", task.train), *([("test", task.test)] if task.test else [])]
    if task.test is None:
        splits = [("all", task.train)]
    return [Labelled(task.name, split, own.sequences) for split, own in splits]
