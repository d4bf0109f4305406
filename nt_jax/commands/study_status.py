"""`nt-jax study status`: how far every run of a study is."""

import argparse
import dataclasses
import json

from nt_jax.commands import options as common
from nt_jax.commands import studying


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    studying.study(parser)
    studying.out(parser)
    common.as_json(parser, "states")


def run(options: argparse.Namespace) -> None:
    """Prints a table of the runs."""
    study = studying.checked(options)
    from nt_jax.studies import status
    from nt_jax.studies.folder import Folder

    found = [status.progress(one, Folder(options.out)) for one in study.runs]
    if options.json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=2))
    else:
        print(status.table(found))
