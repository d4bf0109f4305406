"""`nt-jax study report`: all runs of a study as one tidy table and one page."""

import argparse

from nt_jax.commands import studying


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    studying.study(parser)
    studying.out(parser)


def run(options: argparse.Namespace) -> None:
    """Writes table.tsv, table.json, timings.tsv and report.html; the page's path is printed."""
    study = studying.checked(options)
    from nt_jax.studies.page import write_report

    print(write_report(study, options.out))
