"""`nt-jax tasks`: the labelled sets known by name, and which of them are here."""

import argparse
import dataclasses
import json

from nt_jax.commands import options as common


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    common.data_dir(parser)
    common.as_json(parser, "list")


def run(options: argparse.Namespace) -> None:
    """Prints the table, or a list of objects."""
    from nt_jax.evaluation.tasks.find import list_tasks, task_table
    from nt_jax.evaluation.tasks.registry import SUITES

    if not options.json:
        print(task_table(options.data_dir))
        return
    rows = []
    for listing in list_tasks(options.data_dir):
        suite = SUITES[listing.entry.suite]
        row = dataclasses.asdict(listing.entry)
        row |= {"source": suite.source, "paper": suite.paper, "licence": suite.licence}
        row["path"] = str(listing.path) if listing.path else None
        rows.append(row)
    print(json.dumps(rows, indent=2))
