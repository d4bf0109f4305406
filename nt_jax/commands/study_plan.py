"""`nt-jax study plan`: what every run of a study would take."""

import argparse
import json
import os
import pathlib
import sys

from nt_jax.commands import options as common
from nt_jax.commands import studying


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    studying.study(parser)
    studying.only(parser)
    parser.add_argument(
        "--topology", action="append", nargs="+", default=[], metavar="NAME",
        help="v5e-16, v5p-64x2 (two slices), h200-8: days and cost there",
    )  # fmt: skip
    parser.add_argument(
        "--estimate", action="store_true",
        help="by formula, nothing is compiled: at once, and within some tens of per cent",
    )  # fmt: skip
    parser.add_argument("--price", type=float, metavar="DOLLARS", help="of a chip-hour")
    parser.add_argument(
        "--cache", type=pathlib.Path, metavar="DIR",
        help="where compiled programs are kept (default: .cache/nt-jax/plan in the home folder)",
    )  # fmt: skip
    common.as_json(parser, "plan")


def run(options: argparse.Namespace) -> None:
    """Prints the plan; whether runs fit or not is in it."""
    from nt_jax.studies.find import choose, find_study

    study = find_study(options.study)
    runs = choose(study, common.flat(options.only))
    # Planning needs no device.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from nt_jax.plan import compiler, topology
    from nt_jax.studies import plan

    where = [topology.parse(name) for name in common.flat(options.topology)]
    predict = (
        plan.by_formula(options.price)
        if options.estimate
        else plan.compiled(options.cache or compiler.CACHE, options.price)
    )
    found = plan.costs(runs, where, predict, lambda line: print(line, file=sys.stderr, flush=True))
    if options.json:
        whole = {"study": study.name, "runs": [one.to_dict() for one in found]}
        print(json.dumps({**whole, "totals": plan.totals(found)}, indent=2))
    else:
        print(plan.text(found, where))
