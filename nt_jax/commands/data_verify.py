"""`nt-jax data verify`: what is wrong with a dataset."""

import argparse
import dataclasses
import json
import pathlib

from nt_jax.commands import options as common


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("dir", type=pathlib.Path, metavar="DIR", help="dataset folder")
    common.as_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prints the findings; 1 when something is wrong."""
    from data_pipelines.verify import verify

    report = verify(options.dir)
    if options.json:
        print(json.dumps(dataclasses.asdict(report), indent=2))
    else:
        for name, value in dataclasses.asdict(report).items():
            print(f"{name:<24} {value}")
    return 1 if report.problems else 0
